"""A deployment's folder whose release is in place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edge_host.constants import DEPLOYED_FILES


def deployed(root: Path) -> Path:
    """Make a deployment at `root`, with a release of one model."""
    written = {}
    for name in DEPLOYED_FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
        # As release.json has it: engine.env is in the release's own folder.
        written[name.rpartition("/")[2]] = hashlib.sha256(f"{name}\n".encode()).hexdigest()
    weights = root / "models/m.gguf"
    weights.parent.mkdir()
    weights.write_bytes(b"GGUF")
    sha256 = hashlib.sha256(b"GGUF").hexdigest()
    status = weights.stat()
    record = {"size": 4, "mtime_ns": status.st_mtime_ns, "sha256": sha256}
    (root / "models/.verified.json").write_text(json.dumps({"m.gguf": record}))
    plan: dict[str, Any] = {"model": {"files": [{"path": "m.gguf", "sha256": sha256}]}}
    (root / "current").mkdir()
    (root / "current/release.json").write_text(json.dumps({"written": written, "plan": plan}))
    return root
