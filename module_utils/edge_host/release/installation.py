"""Brings the units of this version to a host whose release stays, without a pause for clients."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from ..constants import IN_PLACE
from ..release_record import listen_address
from ..sockets.units import install as install_sockets
from ..sockets.units import move as move_sockets
from ..unit_files.installed import build_units, inspect_installation
from .errors import ReleaseError
from .host import Host
from .lock import lock_host
from .systemd import install_recovery, remove_other_programs, wait_for_recovery


def find_differences(host: Host, program: Path) -> Dict[str, str]:
    """Return what is not as this version installs it: the program and unit files, by name."""
    found = inspect_installation(host.root, program, _address(host))
    return {name: state for name, state in found.items() if state != IN_PLACE}


def build_host_units(host: Host, program: Path) -> Dict[str, str]:
    """Return the names and texts of the units that the host is to have."""
    return build_units(host.root, program, _address(host))


def install_units(host: Host, program: Path, operator: str) -> None:
    """Install the units of a host, which run the program, and remove other programs.

    The program is on the host. No change runs meanwhile. Raises ReleaseError, also where another
    process changes the host.
    """
    if not program.is_file():
        raise ReleaseError(f"{program} is missing. Run site.yml")
    with lock_host(host.root, operator):
        # An installation that was interrupted has left units that are not in effect.
        install_sockets(host.root, program, _address(host), restart=True)
        move_sockets(_address(host))
        install_recovery(host, program)
        # In the end: as long as there are others, the host differs.
        remove_other_programs(program)
    wait_for_recovery(host)


def _address(host: Host) -> str:
    release = host.releases.current()
    return listen_address(release.record) if release else ""
