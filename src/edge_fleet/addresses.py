"""The control machine's own address, for hosts that download from it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any


def with_control_peer(job: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The download job with the control machine among its peers, by its address on the way to the
    host.

    `control_port` of the job is the port at which the control machine seeds the files; a job
    without one stays as it is.
    """
    found = dict(job)
    if port := found.pop("control_port", None):
        address = own_address(host)
        found["peers"] = [*job["peers"], *([f"{address}:{port}"] if address else [])]
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
