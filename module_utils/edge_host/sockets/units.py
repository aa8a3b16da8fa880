"""The units by which systemd holds the host's ports (a stand-in)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..constants import SOCKET_UNIT


def install(host_root: Path, archive_path: Path, listen_address: str) -> bool:
    """Install and enable the units; returns whether that changed anything. Raises OSError."""
    return False


def holding() -> bool:
    """Whether systemd holds the ports."""
    command = ["systemctl", "--quiet", "is-active", SOCKET_UNIT]
    return subprocess.run(command, check=False).returncode == 0


def start() -> None:
    """Have systemd hold the ports. Raises OSError where another program has one of them."""
    done = subprocess.run(
        ["systemctl", "start", SOCKET_UNIT], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(done.stderr.strip())


def remove() -> None:
    """Stop and remove the units."""
