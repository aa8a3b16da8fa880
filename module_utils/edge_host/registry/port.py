"""Opens and closes the port by which a fleet's hosts pull images from this host.

Two units: the socket, which is systemd's, and the service, which passes connections on
(`forward`). The port is open while both run. The service has a time limit, and the socket is bound
to it, so that a run that is killed leaves no open port behind.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import List, Sequence, Tuple

from ..constants import REGISTRY_PORT, REGISTRY_PROJECT, REGISTRY_UID
from ..errors import ReleaseError
from ..files import read_text, write_atomically
from ..systemd import UNITS, run_systemctl
from .client import READY_SECONDS, RegistryClient
from .errors import RegistryError
from .sandbox import SANDBOX

SOCKET, SERVICE = f"{REGISTRY_PROJECT}.socket", f"{REGISTRY_PROJECT}.service"
LOOPBACK = ("127.0.0.1", "::1")
"""Of the host itself, which pulls from its own registry, too."""
_SOCKET_TEXT = """\
[Unit]
Description=Port of the fleet's image registry, open while images are distributed
# The service has a time limit: when it ends, the port closes, and no connection starts it anew.
BindsTo={service}

[Socket]
ListenStream={port}
Backlog=256
KeepAlive=yes
KeepAliveTimeSec=60
"""
_SERVICE_TEXT = """\
[Unit]
Description=Passes connections of the fleet's hosts to its image registry
Requires={socket}
After={socket}

[Service]
Type=notify
ExecStart={python} -I {program} registry {user} {registry} {addresses}
RuntimeMaxSec={seconds}s
# systemd hands the port over: the program needs no network, and of the host only the one socket.
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
IPAddressDeny=any
ProcSubset=pid
LimitNOFILE=2048
MemoryMax=256M
TasksMax=16
{sandbox}
"""


def build_units(
    program: Path, registry: Path, addresses: Sequence[str], seconds: int, python: str
) -> List[Tuple[str, str]]:
    """Return the names and texts of the units. `registry` is the registry's socket for reads."""
    return [
        (SOCKET, _SOCKET_TEXT.format(service=SERVICE, port=REGISTRY_PORT)),
        (
            SERVICE,
            _SERVICE_TEXT.format(
                socket=SOCKET,
                python=python,
                program=program,
                registry=registry,
                addresses=" ".join(addresses),
                seconds=seconds,
                user=REGISTRY_UID,
                sandbox="\n".join(SANDBOX),
            ),
        ),
    ]


def resolve(names: Sequence[str]) -> Tuple[List[str], List[str]]:
    """The IP addresses of hosts, by name or address, and the names that have none here."""
    addresses: List[str] = []
    unknown: List[str] = []
    for name in names:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            unknown.append(name)
            continue
        addresses += [str(each[4][0]).partition("%")[0] for each in found]
    return sorted(set(addresses)), unknown


def open_port(program: Path, registry: Path, addresses: Sequence[str], seconds: int) -> None:
    """Install the units and open the port for these addresses, once the registry answers.

    Raises RegistryError.
    """
    close_port()
    RegistryClient(registry, REGISTRY_UID).wait_ready(READY_SECONDS)
    allowed = [*LOOPBACK, *(each for each in addresses if each not in LOOPBACK)]
    for name, text in build_units(program, registry, allowed, seconds, sys.executable):
        path = UNITS / name
        if read_text(path) != text:
            write_atomically(path, text.encode(), UNITS)
    _systemctl("daemon-reload")
    _systemctl("start", SOCKET, SERVICE)


def is_open() -> bool:
    """Whether the port is open."""
    return _systemctl("is-active", SOCKET, accepted=range(256)) == "active"


def installed_units() -> List[Path]:
    """The files of the units that are on the host."""
    return [UNITS / name for name in (SOCKET, SERVICE) if (UNITS / name).exists()]


def close_port() -> bool:
    """Close the port; whether it was open. Raises RegistryError."""
    was_open = is_open()
    if names := [path.name for path in installed_units()]:
        _systemctl("stop", *names)
        # A unit that ended at its time limit would stay in the list of failed ones.
        _systemctl("reset-failed", *names, accepted=range(256))
    return was_open


def remove_units() -> bool:
    """Close the port and remove the units; whether there were any. Raises RegistryError."""
    close_port()
    found = installed_units()
    for path in found:
        path.unlink()
    if found:
        _systemctl("daemon-reload")
    return bool(found)


def _systemctl(*arguments: str, accepted: Sequence[int] = (0,)) -> str:
    """Run systemctl; returns its output. Raises RegistryError for an exit status not accepted."""
    try:
        return run_systemctl(*arguments, accepted=accepted)
    except ReleaseError as error:
        raise RegistryError(
            f"Port {REGISTRY_PORT} of the registry cannot be opened or closed: {error}. Check who"
            f" listens on the port (`ss -ltnp`), and `journalctl -u {SERVICE}`."
        ) from error
