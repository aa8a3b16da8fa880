"""The units by which systemd holds the host's ports: their names and texts.

Every option is known to systemd 245 (Ubuntu 20.04), and those that the work depends on to 237
(JetPack 4); older versions ignore unknown options of unit files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Optional

from ..constants import API_PORT, API_UID, ENGINE_PORT, MIB, SOCKETS_MEMORY, SOCKETS_UNIT

SERVICE_UNIT = f"{SOCKETS_UNIT.partition('.')[0]}.service"
START_SECONDS = 90.0
"""The time in which the program has to be ready; a start by systemctl waits for it."""
BACKLOG = 1024
"""Connections that wait for each port while no chat API accepts any."""

# A socket that cannot be listened at fails the unit, and a unit that fails closes its sockets: so
# neither how often the program ends nor how often a connection starts it is limited.
# ReusePort: chat APIs have the sockets, too, and go on with those of before for a moment when the
# unit is restarted. Another program can listen beside them as root alone.
# FreeBind: at boot, systemd listens before the network has its addresses.
_SOCKET = """\
[Unit]
Description=Ports of edge-llm: the chat API's, and the engine's for the host itself
StartLimitIntervalSec=0

[Socket]
ListenStream={address}
ListenStream=127.0.0.1:{engine_port}
FreeBind=yes
ReusePort=yes
Backlog={backlog}
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
"""

# It starts as root and becomes the containers' user at once: systemd refuses User= with a number
# that no user of the host has, and no such user needs to exist.
# PrivateNetwork: the sockets that it is given are those of the host all the same.
_SERVICE = """\
[Unit]
Description=Hands the ports of edge-llm to its chat API
Requires={socket_unit}
After={socket_unit}
RequiresMountsFor={root}
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -I {program} sockets {folder}/door.sock {user}
TimeoutStartSec={seconds:.0f}s
Restart=always
RestartSec=1s
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SETUID CAP_SETGID
ProtectSystem=strict
ProtectHome=yes
ReadWritePaths={folder}
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
MemoryMax={memory}M
TasksMax=16
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""


def build_socket(listen_address: str) -> str:
    """Return the text of the socket unit, which listens at an address; empty for all addresses."""
    host = f"[{listen_address}]" if ":" in listen_address else listen_address
    return _SOCKET.format(
        # A port alone is that of all addresses, of IPv4 and of IPv6 where the host has that.
        address=f"{host}:{API_PORT}" if host else API_PORT,
        engine_port=ENGINE_PORT,
        backlog=BACKLOG,
    )


def find_addresses(text: str) -> List[str]:
    """Return where a socket unit with this text listens."""
    return re.findall(r"(?m)^ListenStream=(.*)$", text)


def find_listen_address(text: str) -> Optional[str]:
    """Return the address of the chat API in a socket unit with this text, as `build_socket` got it.

    None where the text has none.
    """
    found = re.search(rf"(?m)^ListenStream=(?:(\S+):)?{API_PORT}$", text)
    return (found[1] or "").strip("[]") if found else None


def build_service(root: Path, python: str, program: Path) -> str:
    """Return the text of the unit that runs the program (`edge_host.cli`)."""
    return _SERVICE.format(
        socket_unit=SOCKETS_UNIT,
        root=root,
        folder=root / "run",
        python=python,
        program=program,
        user=API_UID,
        seconds=START_SECONDS,
        memory=SOCKETS_MEMORY // MIB,
    )


def build_socket_units(
    root: Path, python: str, program: Path, listen_address: str
) -> Dict[str, str]:
    """Return the names and texts of both units."""
    return {
        SOCKETS_UNIT: build_socket(listen_address),
        SERVICE_UNIT: build_service(root, python, program),
    }
