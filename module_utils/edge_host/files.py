"""Reads and writes files on the host."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO, Dict, Iterable, List, Mapping, Optional, Tuple

from .foreign import give
from .json_data import Facts, parse_json


def read_text(path: Path) -> Optional[str]:
    """A small file's text, or None where it is not there or not ours to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_number(path: Path) -> Optional[int]:
    """The number that a file of /sys or /proc holds, or None where it holds no integer."""
    text = (read_text(path) or "").strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def diff_texts(before: Mapping[str, str], after: Mapping[str, str]) -> List[Dict[str, str]]:
    """How the texts of files differ, by the files' names, in the form that Ansible shows.

    A file that is not in `before` has no text there.
    """
    return [
        {"before_header": name, "after_header": name, "before": before.get(name, ""), "after": text}
        for name, text in after.items()
        if before.get(name, "") != text
    ]


def first_text(paths: Iterable[Path]) -> str:
    """The text of the first path that has any, else an empty string."""
    for path in paths:
        text = read_text(path)
        if text:
            return text
    return ""


def entries(folder: Path) -> List[Path]:
    """What is in a folder, by name; nothing where it is not there or not ours to read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def read_json(path: Path) -> Optional[Facts]:
    """A file's JSON object, or None where it is not there or holds something else."""
    found = parse_json(read_text(path) or "")
    return found if isinstance(found, dict) else None


def stream_sha256(stream: BinaryIO) -> str:
    """SHA-256 of what is left of a stream, lower-case hexadecimal."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def read_file(path: Path) -> Optional[Facts]:
    """{"sha256", "mode" (as "0644"), "uid", "gid"} of a regular file, or None."""
    try:
        # One file from the look to the last byte, even where somebody may replace it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            return None
        raise
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        sha256 = stream_sha256(stream)
    return {
        "sha256": sha256,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def check_file_name(name: str, what: str) -> str:
    """The name, when it is that of a file in a folder and leads nowhere else; else ValueError."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise ValueError(
            f"The name of a file in {what} is invalid: {name!r}. Use a name without separators."
        )
    return name


def allocated(path: Path) -> int:
    """Bytes of disk that a file or a folder takes; a file with holes takes less than its size.

    What a link leads to does not count.
    """
    try:
        entries = [] if path.is_symlink() else [path, *path.rglob("*")]
        found = [each.lstat() for each in entries]
        return sum(each.st_blocks * 512 for each in found if not stat.S_ISDIR(each.st_mode))
    except OSError:  # it was made or removed meanwhile
        return 0


def open_files(process: Path) -> List[str]:
    """What the descriptors of a process stand for, as far as they can be seen."""
    links = []
    try:
        for entry in (process / "fd").iterdir():
            try:
                links.append(os.readlink(entry))  # noqa: PTH115 - Path.readlink is of Python 3.9
            except FileNotFoundError:  # closed meanwhile
                continue
    except OSError:  # the process ended meanwhile, or is not ours to look into
        pass
    return links


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk: a rename lives in memory until then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(
    path: Path,
    content: bytes,
    workshop: Path,
    mode: int = 0o644,
    sync: bool = True,
    owner: Optional[Tuple[int, int]] = None,
) -> None:
    """Put content at path in one step that survives a power cut: all of it, or the former content.

    The new file is made in `workshop`, a folder of the same file system. Without `sync` only those
    who read it meanwhile are safe. `owner` (uid, gid) gets it, before it gets its name; by default
    it is the caller's.
    """
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=workshop)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            give(descriptor, *(owner or (os.geteuid(), os.getegid())), mode)
            stream.flush()
            if sync:
                os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
    if sync:
        sync_folder(path.parent)
