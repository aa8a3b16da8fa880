"""What runs on the host and is installed there."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Dict, Iterable, List, Optional

from ..commands import which
from ..constants import USER_IDS
from ..files import entries, read_text
from ..json_data import Facts, objects, parse_json

# Main processes of desktop sessions, as far as comm holds their names (15 characters); the first
# that runs is named, since a session has several.
_DESKTOPS = (
    *("gnome-shell", "plasmashell", "xfce4-session", "lxsession", "lxqt-session"),
    *("mate-session", "cinnamon", "compiz", "kwin_wayland", "kwin_x11", "kwin"),
    *("labwc", "wayfire", "sway", "weston", "Xorg", "Xwayland"),
)
DOCKER_PACKAGES = (
    *("containerd", "containerd.io", "docker-ce"),
    *("docker-compose", "docker-compose-v2", "docker.io"),
)


def parse_desktop(names: Iterable[str]) -> Optional[str]:
    """The main process of a desktop session among the names of processes, or None."""
    running = set(names)
    return next((name for name in _DESKTOPS if name in running), None)


def parse_unattended(text: str) -> Optional[bool]:
    """Whether apt's configuration asks for unattended upgrades; None where it does not set them."""
    # Without comments; quoted text stays.
    bare = re.sub(r'("[^"\n]*")|/\*.*?\*/|//[^\n]*|#[^\n]*', r"\1", text, flags=re.S)
    values = re.findall(r'\bUnattended-Upgrade\s+"([^"\n]*)"\s*;', bare, re.I)
    return values[-1] not in ("", "0") if values else None


def parse_packages(text: str) -> Dict[str, List[str]]:
    """{"installed", "held"}: Docker's packages with that status, from dpkg's status file."""
    names = "|".join(map(re.escape, DOCKER_PACKAGES))
    found = re.findall(rf"^Package: ({names})\n(?:.+\n)*?Status: (\w+) \w+ ([\w-]+)$", text, re.M)
    return {
        "installed": sorted({name for name, _, state in found if state == "installed"}),
        "held": sorted({name for name, wanted, _ in found if wanted == "hold"}),
    }


def parse_addresses(text: str) -> List[str]:
    """The addresses by which others reach the host, from `ip -json address`.

    Those of containers' networks are left out, and those that mean nothing beyond one cable.
    """
    inside = re.compile(r"lo$|docker|br-|veth|cni|virbr|l4tbr|rndis|usb")
    return [
        str(each["local"])
        for link in objects(parse_json(text))
        if not inside.match(str(link.get("ifname", "")))
        for each in objects(link.get("addr_info"))
        if each.get("scope") == "global" and not each.get("temporary") and "local" in each
    ]


def parse_accounts(text: str, kind: str = "user") -> List[Facts]:
    """The accounts with the numbers of the project's users: [{"kind", "name", "id"}].

    From `getent passwd`, or, of the kind "group", from `getent group`.
    """
    ours = {str(number): number for number in USER_IDS}
    return [
        {"kind": kind, "name": fields[0], "id": ours[fields[2]]}
        for fields in (line.split(":") for line in text.splitlines())
        if len(fields) > 2 and fields[2] in ours
    ]


def read_tools() -> List[str]:
    """The commands for downloads of weights and images that the host has."""
    return [name for name in ("curl", "skopeo") if which(name)]


def processes(system: Path) -> List[Path]:
    """The folders in /proc of all processes that can be seen."""
    return [path for path in entries(system / "proc") if path.name.isdigit()]


def process_name(process: Path) -> str:
    """The name of the program that a process, by its folder in /proc, runs."""
    return (read_text(process / "comm") or "").strip()


def process_names(system: Path) -> List[str]:
    """The names of all processes that can be seen."""
    return [process_name(process) for process in processes(system)]


def command_lines(system: Path) -> List[bytes]:
    """The commands of all processes that can be seen, each with its arguments."""
    found = []
    for process in processes(system):
        # The process may have ended meanwhile.
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes())
    return found


def read_container(system: Path) -> bool:
    """Whether the host is a container, from systemd, Docker, Podman or its first process."""
    environment = (read_text(system / "proc/1/environ") or "").split("\0")
    marks = ("run/systemd/container", ".dockerenv", "run/.containerenv")
    return any(word.startswith("container=") and word != "container=" for word in environment) or (
        any((system / mark).exists() for mark in marks)
    )


def read_unattended(system: Path) -> bool:
    """Whether apt is configured to upgrade by itself."""
    # As apt chooses files: others are backups, or disabled.
    paths = [
        path
        for path in entries(system / "etc/apt/apt.conf.d")
        if re.match(r"[\w-][\w.-]*$", path.name, re.ASCII) and path.suffix in ("", ".conf")
    ]
    found = [
        parse_unattended(read_text(path) or "") for path in [*paths, system / "etc/apt/apt.conf"]
    ]
    return next((each for each in reversed(found) if each is not None), False)


def read_packages(system: Path) -> Dict[str, List[str]]:
    """{"installed", "held"} of Docker's packages, by dpkg."""
    return parse_packages(read_text(system / "var/lib/dpkg/status") or "")
