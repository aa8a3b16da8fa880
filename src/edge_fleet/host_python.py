"""The Python that Ansible's modules need on a host, and why the host's own is too old."""

from __future__ import annotations

import re

from edge_fleet.l4t import JETPACKS
from edge_fleet.text import parse_version

# ansible-core (from) -> the oldest Python that its modules run on; edge_host needs 3.8.
MINIMUM = {(2, 19): (3, 8), (2, 20): (3, 9)}
# The version that board_python_install installs.
INSTALLED = (3, 8)


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def minimum_python(core: str) -> tuple[int, ...]:
    """The oldest Python on hosts that an ansible-core release runs on."""
    release = parse_version(core)[:2]
    return MINIMUM[max((each for each in MINIMUM if each <= release), default=min(MINIMUM))]


def python_problem(printed: str, host: str, core: str, install: bool = False) -> str:
    """Why a host's python3 is too old, and what to do; empty where it is not, or where another may
    be installed.

    `printed` is the output of `python3 --version` on the host, and the first line of
    /etc/nv_tegra_release if there is one.
    """
    found = re.search(r"^Python (\d+\.\d+[\d.]*)", printed, re.MULTILINE)
    needed = minimum_python(core)
    if not found or parse_version(found[1]) >= needed:
        return ""
    if needed > INSTALLED:
        system = ""
        if l4t := re.search(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", printed, re.MULTILINE):
            named = JETPACKS.get(int(l4t[1]))
            system = f" (JetPack {named}, L4T {l4t[1]}.{l4t[2]})" if named else ""
        return (
            f"{host}: Python on the host is too old: python3 is {found[1]}{system}, and"
            f" ansible-core {core} on the control machine needs {_text(needed)} or newer on hosts."
            " Use ansible-core 2.19, which `scripts/venv control` installs into .venv, or set"
            f" ansible_python_interpreter to a Python {_text(needed)} or newer on the host."
        )
    if install:
        return ""
    return (
        f"{host}: Python on the host is too old: python3 is {found[1]}, and {_text(needed)} or"
        " newer is needed. Set board_python_install: true, which installs"
        f" python{_text(INSTALLED)} from the system's archive beside it, or set"
        " ansible_python_interpreter to a Python on the host."
    )
