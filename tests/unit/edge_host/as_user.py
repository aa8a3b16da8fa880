"""A host and its users, and a process of one of them that was taken over."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_host.certificate import install_certificate
from edge_host.constants import CLIENT_KEYS
from edge_host.folders import ensure_folders
from edge_host.release.engine_key import ensure_engine_key

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user reaches; those of pytest are one user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def etc(shared: Path) -> Path:
    """What is aimed at: a folder of root's with a secret."""
    folder = shared / "etc"
    folder.mkdir()
    (folder / "shadow").write_text("root:secret\n")
    (folder / "shadow").chmod(0o640)
    return folder


@pytest.fixture
def root(shared: Path) -> Path:
    """A host of this version."""
    folder = shared / "edge-llm"
    ensure_folders(folder)
    ensure_engine_key(folder)
    (folder / "secrets" / CLIENT_KEYS).write_text("hashes\n")
    install_certificate(folder / "secrets", "C1", "K1")
    ensure_folders(folder)
    return folder


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


def states(*paths: Path) -> list[tuple[Any, ...]]:
    return [state_of(path) for path in paths]


def can_read(user: int, path: Path) -> bool:
    done = run_as(user, "cat", str(path))
    assert (done.returncode == 0) == bool(done.stdout)
    return done.returncode == 0
