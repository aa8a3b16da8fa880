"""Who listens on the host's TCP ports."""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from ..files import open_files, read_text
from ..json_data import Facts
from .system import process_name, processes


def parse_address(text: str) -> Optional[str]:
    """An address of /proc/net/tcp or tcp6: 32-bit words in the machine's own byte order.

    None for any other text.
    """
    if not re.fullmatch(r"[0-9A-F]{8}|[0-9A-F]{32}", text):
        return None
    numbers = [int(text[index : index + 8], 16) for index in range(0, len(text), 8)]
    packed = struct.pack(f"={len(numbers)}I", *numbers)
    return socket.inet_ntop(socket.AF_INET if len(numbers) == 1 else socket.AF_INET6, packed)


def parse_listeners(text: str) -> List[Tuple[int, str, int]]:
    """(port, address, socket inode) for each listening line of /proc/net/tcp or tcp6."""
    listeners = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < 10 or columns[3] != "0A":  # TCP_LISTEN
            continue
        host, _, port = columns[1].rpartition(":")
        address, inode = parse_address(host), columns[9]
        if address and re.fullmatch("[0-9A-F]{4}", port) and re.fullmatch("[0-9]{1,20}", inode):
            listeners.append((int(port, 16), address, int(inode)))
    return listeners


def read_listeners(system: Path) -> List[Tuple[int, str, int]]:
    """(port, address, socket inode) for each listening TCP socket of the host."""
    return [
        listener
        for name in ("tcp", "tcp6")
        for listener in parse_listeners(read_text(system / "proc/net" / name) or "")
    ]


def socket_owners(inodes: Iterable[int], system: Path) -> Dict[int, Path]:
    """The folder in /proc of the process that holds each socket, for those that can be seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: Dict[int, Path] = {}
    if not wanted:
        return owners
    for process in processes(system):
        for link in open_files(process):
            inode = wanted.get(link)
            if inode is not None and inode not in owners:
                owners[inode] = process
    return owners


def parse_container_id(text: str) -> Optional[str]:
    """The id of the Docker container of a process, by its /proc/PID/cgroup; None where it has none.

    The last one: a board may be a container itself.
    """
    found = re.findall(r"/docker[-/]([0-9a-f]{64})(?=\.scope|/|$)", text, re.MULTILINE)
    return str(found[-1]) if found else None


def parse_socket_units(text: str) -> Dict[int, str]:
    """TCP port -> unit, for each socket of `systemctl list-sockets --no-legend`."""
    # Other sockets have paths, names or, as vsock, numbers that may end like that, too.
    row_of = re.compile(r"\s*(?:[0-9.]+|\[[^\s\[\]]+\]):([0-9]{1,5})\s+(\S+\.socket)\s")
    rows = (row_of.match(row) for row in text.splitlines())
    return {int(row[1]): row[2] for row in rows if row}


def read_ports(
    ports: Iterable[int],
    published: Iterable[Tuple[str, str, int]],
    containers: Mapping[str, str],
    units: Mapping[int, str],
    system: Path,
) -> Dict[str, Optional[Facts]]:
    """Who listens on each of the host's TCP ports: None for a port that is free.

    `published` are the ports of Docker's containers, `containers` their names by id, and `units`
    the ports of systemd's socket units.
    """
    listeners = read_listeners(system)
    published = list(published)
    wanted = set(ports)
    owners = socket_owners((inode for port, _, inode in listeners if port in wanted), system)
    taken: Dict[str, Optional[Facts]] = {}
    for port in sorted(wanted):
        here = [(address, inode) for number, address, inode in listeners if number == port]
        # Docker may publish a port by packet filter rules alone, with nobody listening.
        by_docker = [(name, address) for name, address, number in published if number == port]
        addresses = {address for address, _ in here} | {address for _, address in by_docker}
        if not addresses:
            taken[str(port)] = None
            continue
        process = next((owners[inode] for _, inode in here if inode in owners), None)
        # Chat APIs have the sockets of these ports too, and go on with them if nobody else has.
        inside = parse_container_id(read_text(process / "cgroup") or "") if process else None
        taken[str(port)] = {
            "addresses": sorted(addresses),
            "process": f"{process_name(process)} (pid {process.name})" if process else None,
            "container": by_docker[0][0] if by_docker else containers.get(inside or ""),
            "unit": units.get(port),
        }
    return taken
