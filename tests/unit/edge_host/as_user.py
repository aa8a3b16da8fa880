"""A process of another user, as a downloader that was taken over would be."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user reaches; those of pytest are one user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def run_as(user: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user with a group of the same number, and no other groups or rights."""
    return subprocess.run(
        [
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *("--no-new-privs", "--", *command),
        ],
        cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def state_of(path: Path) -> tuple[int, int, int, bytes | str]:
    """Owner, group, mode and content of a file, folder or link, which is not followed."""
    status = path.lstat()
    if path.is_symlink():
        content: bytes | str = str(path.readlink())
    else:
        content = path.read_bytes() if path.is_file() else ""
    return status.st_uid, status.st_gid, status.st_mode, content
