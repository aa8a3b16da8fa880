"""What systemd allows the programs of this project on a host: properties of their units.

A unit file has them as lines, and `systemd-run` takes each by `--property=`. systemd-run refuses a
property that it does not know, so all of them are known to systemd 245 (Ubuntu 20.04). Older
versions ignore unknown lines of unit files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Sequence, Tuple

MEMORY_MAX = "512M"
"""The docker command takes 60 MiB and runs up to three times at once; Python takes 30 MiB, and 60
for a whole log of an engine. What is written to a disk counts, too, and is written out in time."""
TASKS_MAX = 256
"""The docker command and its compose plugin have up to 20 threads each."""
SERVICE_CAPABILITIES = (
    # The folders of keys and sockets belong to the containers' user.
    "CAP_DAC_OVERRIDE",
    # The hold's lock gets the group that may read it.
    "CAP_CHOWN",
    "CAP_FOWNER",
    # Whose network namespace a container is in: the kernel tells that of another user's process
    # only so. Without it every container seemed to be in a lost one, and was restarted.
    "CAP_SYS_PTRACE",
)
"""What the change and the recovery may do as root."""
SERVICE_FAMILIES = ("AF_UNIX",)
"""The change and the recovery reach Docker and the chat API by Unix sockets alone."""
DOWNLOAD_CAPABILITIES = (
    # Folders that earlier versions gave to their downloader, and weights that a person has copied
    # to the models folder: both become root's.
    *("CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"),
    # setpriv starts what talks to other machines (curl, peer_server, peer_client) as another user,
    # without privileges.
    *("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"),
    # A stop ends these, which are another user's processes.
    "CAP_KILL",
)
"""What the download's program may do as root. It alone writes, and it alone has any of these."""
DOWNLOAD_FAMILIES = ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK")
"""curl and the programs of peers are processes of the unit, too. The C library asks the kernel by
netlink which addresses the host has, when it resolves names."""

CONFINED = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    # Programs try newer system calls first, and take an older one where they may not.
    "SystemCallErrorNumber=EPERM",
    # Their memory has keys in it.
    "LimitCORE=0",
)
"""Properties of every program of the project that systemd runs."""
_COMMON = (
    *CONFINED,
    # Docker's configuration for root, such as credentials of registries, is read there.
    "ProtectHome=read-only",
    f"MemoryMax={MEMORY_MAX}",
    f"TasksMax={TASKS_MAX}",
)


def confine_service(root: Path) -> Tuple[str, ...]:
    """Return the properties of a unit that changes or recovers the host below `root`."""
    return _confine(SERVICE_CAPABILITIES, SERVICE_FAMILIES, [root])


def confine_download(folder: Path, runtime: Path) -> Tuple[str, ...]:
    """Return the properties of a unit that downloads to the models folder `folder`."""
    return _confine(DOWNLOAD_CAPABILITIES, DOWNLOAD_FAMILIES, [folder, runtime])


def _confine(
    capabilities: Sequence[str], families: Sequence[str], writable: Sequence[Path]
) -> Tuple[str, ...]:
    return (
        *_COMMON,
        f"CapabilityBoundingSet={' '.join(capabilities)}",
        f"RestrictAddressFamilies={' '.join(families)}",
        # Where one is a link, as to another disk, systemd follows it.
        f"ReadWritePaths={' '.join(map(str, writable))}",
    )
