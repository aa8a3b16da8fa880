"""What only a Jetson has: its L4T release, power modes, clocks and fan."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, Optional, Tuple

from ..commands import Result
from ..files import read_text
from ..json_data import Facts
from ..systemd import UNITS
from ..unit_files.clocks import CLOCKS_TEXT, CLOCKS_UNIT
from ..unit_files.installed import is_written


def parse_l4t(text: str) -> Optional[Facts]:
    """Release of Jetson Linux from the first line of /etc/nv_tegra_release.

    `# R36 (release), REVISION: 4.3, GCID: ...` is {"major": 36, "minor": 4, "patch": 3,
    "text": "36.4.3"}; a revision without a patch number has patch 0; None for any other text.
    """
    match = re.match(r"#\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4})(?:\.(\d{1,4}))?", text)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return {"major": major, "minor": minor, "patch": patch, "text": f"{major}.{minor}.{patch}"}


def parse_power_mode(text: str) -> Tuple[Optional[str], Optional[int]]:
    """(name, number) of the power mode that `nvpmodel -q` prints; None for a missing value.

    Warnings can stand before, and errors behind where the caller is not root.
    """
    match = re.search(r"NV Power Mode: *(\S+)[^\n]*(?:\n+ *([0-9]{1,4}) *(?:\n|$))?", text)
    if match is None:
        return None, None
    return match.group(1), None if match.group(2) is None else int(match.group(2))


def parse_power_modes(text: str) -> Dict[str, int]:
    """Name -> number of the power modes that /etc/nvpmodel.conf defines."""
    lines = re.findall(r"^[^#\n]*\bPOWER_MODEL:?\s+ID=([0-9]{1,4})\s+NAME=([^\s>]+)", text, re.M)
    return {name: int(number) for number, name in lines}


def parse_power_status(text: str) -> Optional[int]:
    """The number of the power mode that nvpmodel has kept in /var/lib/nvpmodel/status."""
    match = re.search(r"\bpmode:([0-9]{1,4})\b", text)
    return None if match is None else int(match.group(1))


def read_power(system: Path, answer: Optional[Result]) -> Optional[Facts]:
    """The power mode of a Jetson: {"mode" (name), "id", "modes": {name: id}}, or None.

    `answer` is that of `nvpmodel -q`, None where there is no such command. A value that
    it does not print is read from the file that nvpmodel keeps.
    """
    settings = read_text(system / "etc/nvpmodel.conf")
    kept = read_text(system / "var/lib/nvpmodel/status")
    if answer is None and settings is None and kept is None:
        return None
    modes = parse_power_modes(settings or "")
    mode, number = parse_power_mode(answer.out if answer else "")
    if mode is None:
        number = parse_power_status(kept or "")
        mode = next((name for name, each in modes.items() if each == number), None)
    elif number is None:
        number = modes.get(mode)
    return {"mode": mode, "id": number, "modes": modes}


def read_tuning(system: Path) -> Facts:
    """{"clocks" (does this project's service have them at their highest), "clocks_unit" (is its
    unit as this version of the project installs it), "fan" (the profile that a Jetson's fan
    follows, or None)}."""
    profile = re.search(
        r"^\s*FAN_DEFAULT_PROFILE\s+(\w+)", read_text(system / "etc/nvfancontrol.conf") or "", re.M
    )
    units = system / UNITS.relative_to("/")
    return {
        "clocks": os.path.lexists(units / "multi-user.target.wants" / CLOCKS_UNIT),
        "clocks_unit": is_written(units / CLOCKS_UNIT, CLOCKS_TEXT),
        "fan": profile.group(1) if profile else None,
    }
