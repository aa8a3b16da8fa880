"""Installs the units by which systemd holds the host's ports, and starts and removes them.

On a host of an earlier version, a container (`edge-llm-door`) holds the ports. It is left alone,
since its end would end all connections: the units are enabled, and systemd has the ports from the
next boot on, where it listens before Docker starts. Then Docker cannot start the container again.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Dict, List, Mapping, Tuple, Union

from ..commands import find_python, run_together, which
from ..constants import API_PORT, ENGINE_PORT, PORTS, SOCKETS_UNIT
from ..errors import ReleaseError
from ..files import open_files, read_text, write_atomically
from ..host_info.docker import parse_names, parse_published
from ..host_info.ports import read_listeners, read_ports
from ..systemd import UNITS, run_systemctl
from ..unit_files.installed import is_written
from ..unit_files.sockets import (
    SERVICE_UNIT,
    build_socket,
    build_socket_units,
    find_addresses,
    find_listen_address,
)

Address = Union[IPv4Address, IPv6Address]


def install(
    host_root: Path, archive_path: Path, listen_address: str = "", restart: bool = False
) -> bool:
    """Install and enable the units; returns whether systemd had to read a unit file.

    They are started where the ports are free; where another program holds them, systemd gets them
    at the next boot. Where systemd has the ports, a changed service is restarted, which no client
    notices, and with `restart` any. No socket is closed: a unit that is there keeps its address
    until `move`, so this is safe while another process changes the host. Raises ReleaseError.
    """
    kept = find_listen_address(read_text(UNITS / SOCKETS_UNIT) or "")
    address = listen_address if kept is None else kept
    texts = build_socket_units(host_root, find_python(), archive_path, address)
    changed = _write(texts)
    run_systemctl("--quiet", "enable", SOCKETS_UNIT, SERVICE_UNIT)
    if holding():
        run_systemctl("restart" if changed or restart else "start", SERVICE_UNIT)
    elif not find_holders():
        start()
    return changed


def move(listen_address: str) -> bool:
    """Have systemd listen at an address, empty for all; the caller holds the host's lock.

    Another address than before, or than that of systemd's sockets, restarts the socket unit, which
    ends all connections to it; all else of that unit takes effect at the next boot. Returns whether
    it was restarted: a chat API has the sockets of before then. Raises ReleaseError.
    """
    text = build_socket(listen_address)
    moved = find_addresses(read_text(UNITS / SOCKETS_UNIT) or "") != find_addresses(text)
    _write({SOCKETS_UNIT: text})
    if not holding():
        if not find_holders():
            start()
    elif moved or not _listens(listen_address):
        # The service, which requires it, is restarted with it.
        run_systemctl("restart", SOCKETS_UNIT)
        start()
        return True
    return False


def _write(texts: Mapping[str, str]) -> bool:
    """Write the unit files that differ, and have systemd read what it has not; whether it did."""
    changed = [name for name, text in texts.items() if not is_written(UNITS / name, text)]
    for name in changed:
        write_atomically(UNITS / name, texts[name].encode(), UNITS)
    # An installation may have been killed after it wrote the files.
    outdated = bool(changed) or "yes" in run_systemctl(
        "show", "--property=NeedDaemonReload", "--value", *texts
    )
    if outdated:
        run_systemctl("daemon-reload")
    return outdated


def _listens(listen_address: str) -> bool:
    """Whether systemd listens there and for the engine's port, as far as that can be seen.

    systemd closes the sockets of a former address when it reads the unit again, whoever has it do
    so, and opens those of the new one at a restart only.
    """
    bound = find_bound()
    wanted = ip_address(listen_address) if listen_address else None
    return not bound or (
        any(
            address.is_unspecified if wanted is None else address == wanted
            for address, port in bound
            if port == API_PORT
        )
        and any(port == ENGINE_PORT for _, port in bound)
    )


def find_bound(system: Path = Path("/")) -> List[Tuple[Address, int]]:
    """Return where systemd itself listens, of the host's ports: addresses and ports."""
    # Chat APIs have the sockets, too, and for a moment those of a former address.
    held = set(open_files(system / "proc/1"))
    return [
        (ip_address(address), port)
        for port, address, inode in read_listeners(system)
        if port in PORTS and f"socket:[{inode}]" in held
    ]


def holding() -> bool:
    """Return whether systemd holds the host's ports now: both, since the unit fails with one."""
    # 3: it is not active; 4: there is no such unit.
    return run_systemctl("is-active", SOCKETS_UNIT, accepted=(0, 3, 4)) == "active"


def start() -> None:
    """Start the units; those that are active stay as they are.

    Raises ReleaseError, with the holder's name where another program holds a port.
    """
    # A unit that failed before counts as failed until then.
    run_systemctl("reset-failed", SOCKETS_UNIT, SERVICE_UNIT, accepted=(0, 1, 5))
    try:
        run_systemctl("start", SOCKETS_UNIT, SERVICE_UNIT)
    except ReleaseError as error:
        # Not before: chat APIs that still have sockets of systemd hinder nobody.
        holders = {} if holding() else find_holders()
        if not holders:
            raise
        text = " and ".join(f"port {port} is in use by {each}" for port, each in holders.items())
        raise ReleaseError(
            f"systemd cannot listen: {text}. Stop the other user of the port, and run this again"
        ) from error


def remove() -> None:
    """Stop, disable and remove the units, where they exist; the ports are free then."""
    if not any((UNITS / name).exists() for name in (SOCKETS_UNIT, SERVICE_UNIT)):
        return
    run_systemctl("--quiet", "disable", SOCKETS_UNIT, SERVICE_UNIT, accepted=(0, 1))
    run_systemctl("stop", SOCKETS_UNIT, SERVICE_UNIT, accepted=(0, 5))
    for name in (SOCKETS_UNIT, SERVICE_UNIT):
        if (UNITS / name).exists():
            (UNITS / name).unlink()
    run_systemctl("daemon-reload")


def find_holders(system: Path = Path("/")) -> Dict[int, str]:
    """Return who holds the host's ports, by port: a container or a process; empty: they are free.

    For where systemd does not hold them.
    """
    docker = which("docker")
    # Docker may publish a port without anybody who listens.
    command = [docker or "", "ps", "--no-trunc", "--format", "{{json .}}"]
    answer = run_together({"ps": command} if docker else {}).get("ps")
    said = answer.out if answer else ""
    ports = read_ports(PORTS, parse_published(said), parse_names(said), {}, system)
    return {
        int(port): str(each["container"] or each["process"] or "another process")
        for port, each in ports.items()
        if each
    }
