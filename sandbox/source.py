"""Where images come from: public registries, or Debian's archive and Go modules."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from sandbox.errors import SandboxError
from sandbox.instance import CACHE

Source = Literal["pull", "build"]

_PROBE = "https://registry-1.docker.io/v2/"
_PROBE_SECONDS = 3.0
_REMEMBERED = CACHE / "registry.json"
_DAY = 86400.0


def registry_answers() -> bool:
    """Whether Docker Hub's registry answers within three seconds; 401 is its usual greeting."""
    request = urllib.request.Request(_PROBE, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def decide(
    environ: Mapping[str, str] = os.environ,
    remembered: Path = _REMEMBERED,
    probe: Callable[[], bool] = registry_answers,
    now: float | None = None,
) -> Source:
    """Pull or build: SANDBOX_IMAGES, then an answer not older than a day, then a probe.

    Raises SandboxError where SANDBOX_IMAGES is another word.
    """
    asked = environ.get("SANDBOX_IMAGES", "")
    if asked == "pull":
        return "pull"
    if asked == "build":
        return "build"
    if asked:
        raise SandboxError(f"SANDBOX_IMAGES is {asked!r}; it would have to be pull or build.")
    now = time.time() if now is None else now
    answer = _recall(remembered, now)
    if answer is None:
        answer = probe()
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.write_text(json.dumps({"answers": answer, "asked_at": now}))
    return "pull" if answer else "build"


def _recall(remembered: Path, now: float) -> bool | None:
    try:
        record = json.loads(remembered.read_text())
        answer, age = bool(record["answers"]), now - float(record["asked_at"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return answer if 0 <= age < _DAY else None
