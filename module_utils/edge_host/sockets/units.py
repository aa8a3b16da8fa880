"""The units by which systemd holds the host's ports (a stand-in)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..constants import SOCKETS_UNIT


def install(host_root: Path, archive_path: Path, listen_address: str = "") -> bool:
    """Install and enable the units; returns whether that changed anything."""
    return False


def holding() -> bool:
    """Whether systemd holds the ports."""
    command = ["systemctl", "--quiet", "is-active", SOCKETS_UNIT]
    return subprocess.run(command, check=False).returncode == 0


def start() -> None:
    """Have systemd hold the ports."""
    subprocess.run(["systemctl", "start", SOCKETS_UNIT], check=True)


def remove() -> None:
    """Stop and remove the units."""
