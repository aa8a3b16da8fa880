"""Clocks of a board, and how often it has slowed down."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, Optional

from ..files import read_text

# A Jetson's GPU among the devices whose clock follows their load.
_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
# Alerts at which a Jetson's firmware lowers clocks, among all cooling devices.
_ALERT = re.compile(r"^(?:cpu|gpu|cv[0-9]*|soc[0-9]*)-throttle-alert$")


def read_clocks(system: Path) -> Dict[str, int]:
    """MHz of the processors, by their cpufreq policy, and of a Jetson's GPU; what can be read."""
    clocks = {}
    for policy in sorted((system / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        kilohertz = _number(policy / "scaling_cur_freq")
        if kilohertz is not None:
            clocks[policy.name] = kilohertz // 1000
    for device in sorted((system / "sys/class/devfreq").glob("*")):
        hertz = _number(device / "cur_freq") if _GPU.search(device.name) else None
        if hertz is not None:
            clocks["gpu"] = hertz // 1_000_000
    return clocks


def read_slowdowns(system: Path) -> Dict[str, int]:
    """How often the hardware has lowered its clocks, by cause: counters since the start.

    A Jetson's events of over-current and under-voltage (soctherm), and x86's of temperature.
    """
    counts: Dict[str, int] = {}
    for folder in (system / "sys/class/hwmon").glob("hwmon*"):
        for path in folder.glob("oc[0-9]_event_cnt"):
            _add(counts, f"over-current or under-voltage ({path.name[:3]})", path)
    cpus = system / "sys/devices/system/cpu"
    for path in cpus.glob("cpu[0-9]*/thermal_throttle/package_throttle_count"):
        _add(counts, "temperature of the processor", path)
    return counts


def read_alerts(system: Path) -> Dict[str, int]:
    """Which of a Jetson's alerts of temperature are on (1) or off (0), by their names."""
    alerts = {}
    for device in (system / "sys/class/thermal").glob("cooling_device*"):
        name = (read_text(device / "type") or "").strip()
        state = _number(device / "cur_state")
        if _ALERT.match(name) and state is not None:
            alerts[name] = int(state > 0)
    return alerts


def _add(counts: Dict[str, int], name: str, path: Path) -> None:
    found = _number(path)
    if found is not None:
        # All processors of a package count the same events.
        counts[name] = max(counts.get(name, 0), found)


def _number(path: Path) -> Optional[int]:
    match = re.match(r"\d{1,18}\s*$", read_text(path) or "")
    return int(match.group()) if match else None
