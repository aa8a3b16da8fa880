"""Whether the current release is as it was deployed: its files, and the weights of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, Optional

from ..constants import DEPLOYED_FILES, MODELS
from ..files import read_file
from ..json_data import Facts
from .deployment import read_release
from .weights import read_models

WEIGHTS = "weights"
"""What a model's files are called together as the subject of a drift."""


def read_drift(root: Path) -> Dict[str, bool]:
    """Return which parts of the current release differ from what was deployed.

    Empty for a host without a release. A part differs that was edited, replaced or removed.
    """
    release = read_release(root, "current")
    if release is None:
        return {}
    edited = edited_files(root, release)
    return {
        **{name: name in edited for name in DEPLOYED_FILES},
        WEIGHTS: bool(changed_weights(root, release)),
    }


def list_drift(root: Path) -> Optional[List[str]]:
    """Return the paths below `root` of what differs; None for a host without a release."""
    release = read_release(root, "current")
    if release is None:
        return None
    folder = Path(MODELS).name
    weights = [f"{folder}/{path}" for path in changed_weights(root, release)]
    return [*edited_files(root, release), *weights]


def edited_files(root: Path, release: Facts) -> List[str]:
    """Return the names of a release's files that are not as they were written, or are missing."""
    written = _mapping(release.get("written"))
    found = {name: read_file((root / name).resolve()) for name in DEPLOYED_FILES}
    return [
        name
        for name, file in found.items()
        # The record has names in the release's own folder: engine.env for engine/engine.env.
        if file is None or file["sha256"] != written.get(name.rpartition("/")[2])
    ]


def changed_weights(root: Path, release: Facts) -> List[str]:
    """Return the model's files that are missing, or changed since their content was verified."""
    found = read_models(root / Path(MODELS).name)
    files = _mapping(_mapping(release.get("plan")).get("model")).get("files")
    return [
        str(each.get("path"))
        for each in (files if isinstance(files, list) else [])
        if found.get(str(each.get("path")), {}).get("recorded_sha256") != each.get("sha256")
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
