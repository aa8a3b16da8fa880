"""Owners, modes and kinds of files, without following a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from ..json_data import Facts

MOST_FILES = 20000
"""Files that are read at most: a folder with more is reported as not read to its end."""
_KINDS = (
    ("folder", stat.S_ISDIR),
    ("link", stat.S_ISLNK),
    ("file", stat.S_ISREG),
    ("socket", stat.S_ISSOCK),
)


def read_owner(path: Path) -> Optional[Facts]:
    """Path, kind, owner and mode of a file, or None where it does not exist.

    {"path", "kind" (file, folder, link, socket or other), "mode" (as "0644"), "uid", "gid",
    "target" (of a link, else None)}
    """
    try:
        status = path.lstat()
        kind = next((name for name, is_kind in _KINDS if is_kind(status.st_mode)), "other")
        # Path.readlink is of Python 3.9.
        target = os.readlink(path) if kind == "link" else None  # noqa: PTH115
    except OSError:
        return None
    return {
        "path": str(path),
        "kind": kind,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "target": target,
    }


def read_tree(folder: Path, most: int = MOST_FILES) -> Tuple[List[Facts], bool]:
    """(what is in a folder, itself first; whether that is all). A missing folder has nothing."""
    found: List[Facts] = []
    for path in _walk(folder):
        if len(found) == most:
            return found, False
        each = read_owner(path)
        if each:
            found.append(each)
    return found, True


def _walk(folder: Path) -> Iterator[Path]:
    yield folder
    if folder.is_symlink():  # os.walk follows the folder that it begins with
        return
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            yield Path(here, name)
