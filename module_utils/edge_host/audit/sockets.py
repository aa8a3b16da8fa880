"""The TCP sockets on which a host listens."""

from __future__ import annotations

from pathlib import Path
from typing import List

from ..files import read_text
from ..host_info.ports import parse_listeners, socket_owners
from ..host_info.system import process_name
from ..json_data import Facts


def read_listeners(system: Path) -> List[Facts]:
    """{"port", "address", "process" (its name, or None)} of every listening socket, by port.

    A socket that several processes hold is listed once, with the first of them.
    """
    listeners = [
        each
        for name in ("tcp", "tcp6")
        for each in parse_listeners(read_text(system / "proc/net" / name) or "")
    ]
    owners = socket_owners((inode for _, _, inode in listeners), system)
    found = {
        (port, address): (process_name(owners[inode]) or None) if inode in owners else None
        for port, address, inode in listeners
    }
    return [
        {"port": port, "address": address, "process": process}
        for (port, address), process in sorted(found.items(), key=lambda each: each[0])
    ]
