"""What slows a board down: at this moment, and counted since its start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, Optional, Sequence

from ..files import read_number, read_text
from .power import CARD_SLOWDOWNS
from .raspberry_pi import THROTTLED_NOW

# Alerts at which a Jetson's firmware lowers clocks, among all cooling devices.
_ALERT = re.compile(r"^(?:cpu|gpu|cv[0-9]*|soc[0-9]*)-throttle-alert$")
# The kernel's ways to make a processor slower; a fan is a cooling device, too.
_COOLING = re.compile(r"cpufreq|devfreq|^Processor$")


def read_throttling(
    system: Path,
    firmware: Optional[Sequence[str]] = None,
    cards: Optional[Sequence[str]] = None,
) -> Dict[str, bool]:
    """Return the reasons to be slowed down that the board can tell, and whether each holds now.

    firmware: what a Raspberry Pi's tells (`parse_throttled`); cards: what slows discrete cards down
    (`parse_nvidia_smi`); None where there is no such part.
    """
    reasons: Dict[str, bool] = {}
    if cards is not None:
        reasons = {name: name in cards for name in CARD_SLOWDOWNS.values()}
    if firmware is not None:
        for phrase in THROTTLED_NOW:
            reasons[phrase.rpartition(" ")[0]] = phrase in firmware
    for device in (system / "sys/class/thermal").glob("cooling_device*"):
        kind = (read_text(device / "type") or "").strip()
        name = kind if _ALERT.search(kind) else "temperature" if _COOLING.search(kind) else None
        if name:
            state = read_number(device / "cur_state") or 0
            reasons[name] = reasons.get(name, False) or state > 0
    return reasons


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


def _add(counts: Dict[str, int], name: str, path: Path) -> None:
    found = read_number(path)
    if found is not None:
        # All processors of a package count the same events.
        counts[name] = max(counts.get(name, 0), found)
