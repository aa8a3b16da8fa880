"""Where the project's roles are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def find_role(folders: Iterable[str], role: str) -> Path:
    """The folder of a role: the first in one of the folders of roles."""
    return next(path for path in (Path(each) / role for each in folders) if path.is_dir())
