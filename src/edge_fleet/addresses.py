"""Addresses as the control machine sees them: its own, and those of names."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any


def with_control_address(job: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The download job with the control machine's address on the way to the host.

    It belongs to the predecessor that has none yet; where there is no way, that one is left out.
    """
    found = dict(job)
    peers = [
        {**each, "address": each["address"] or own_address(host)}
        for each in job.get("predecessors", [])
    ]
    found["predecessors"] = [each for each in peers if each["address"]]
    return found


def own_address(peer: str) -> str | None:
    """This machine's address on the way to another one; None where there is no way."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing
            found: str = probe.getsockname()[0]
            return found
    except (OSError, ValueError):
        return None


def resolve(name: str) -> str | None:
    """The first address of a host name; None where it has none."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return None
    return str(found[0][4][0]) if found else None
