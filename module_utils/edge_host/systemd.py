"""The host's systemd: commands to it, and messages to it from the programs that it starts."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Sequence

from .errors import ReleaseError

UNITS = Path("/etc/systemd/system")
SYSTEMCTL_SECONDS = 300.0
"""Seconds for one command: a unit may take 90 s to stop and 90 s to start."""


def run_systemctl(*arguments: str, accepted: Sequence[int] = (0,)) -> str:
    """Run systemctl; returns its output.

    Raises ReleaseError for another exit status, and where it does not end.
    """
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SYSTEMCTL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ReleaseError(
            f"{' '.join(command)} did not end within {SYSTEMCTL_SECONDS:g} s. Check systemd on the"
            " host (systemctl list-jobs)"
        ) from None
    if done.returncode not in accepted:
        raise ReleaseError(
            f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}. Check systemd on the"
            " host"
        )
    return done.stdout.strip()


def notify(message: str) -> None:
    """Send a message to the systemd that started this process, if one did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
