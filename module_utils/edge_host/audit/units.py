"""The project's units of systemd, and how far each is confined."""

from __future__ import annotations

import re
from typing import Dict, List

from ..commands import run_together, which
from ..constants import PROJECT
from ..json_data import Facts

_PATTERN = f"{PROJECT}*.service"


def parse_unit_names(text: str) -> List[str]:
    """The names of services in the lines of `systemctl list-units` and `list-unit-files`.

    Without templates, which are no units by themselves.
    """
    names = re.findall(rf"^\W*({PROJECT}[\w.@:-]*\.service)\s", text, re.MULTILINE)
    return sorted({name for name in names if not name.endswith("@.service")})


def parse_exposure(text: str, unit: str) -> Facts:
    """{"unit", "exposure" (0 to 10, or None), "error" (None, or why there is no exposure)} from the
    output of `systemd-analyze security UNIT`.
    """
    match = re.search(r"Overall exposure level for \S+: ([0-9]+(?:\.[0-9]+)?)", text)
    if match:
        return {"unit": unit, "exposure": float(match.group(1)), "error": None}
    lines = text.strip().splitlines()
    return {"unit": unit, "exposure": None, "error": lines[-1] if lines else "no output"}


def read_units() -> List[Facts]:
    """Every service of the project that systemd knows, with its exposure, by `parse_exposure`."""
    systemctl, analyze = which("systemctl"), which("systemd-analyze")
    if systemctl is None:
        return []
    options = ["--no-legend", "--no-pager", "--plain", "--all", _PATTERN]
    lists = run_together(
        {
            "files": [systemctl, "list-unit-files", *options],
            "units": [systemctl, "list-units", *options],
        }
    )
    names = parse_unit_names("".join(f"{each.out}\n" for each in lists.values()))
    if analyze is None:
        missing = "there is no systemd-analyze command"
        return [{"unit": name, "exposure": None, "error": missing} for name in names]
    commands: Dict[str, List[str]] = {
        name: [analyze, "security", "--no-pager", name] for name in names
    }
    answers = run_together(commands)
    return [parse_exposure(answers[name].out or answers[name].err, name) for name in names]
