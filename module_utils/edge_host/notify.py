"""Tells systemd about the process that it started."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send a message, such as READY=1, to the systemd that started this process, if one did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
