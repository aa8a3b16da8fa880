"""Clocks of a board."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict

from ..files import read_number

# A Jetson's GPU among the devices whose clock follows their load.
_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")


def read_clocks(system: Path) -> Dict[str, int]:
    """MHz of the processors, by their cpufreq policy, and of a Jetson's GPU; what can be read."""
    clocks = {}
    for policy in sorted((system / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        kilohertz = read_number(policy / "scaling_cur_freq")
        if kilohertz is not None:
            clocks[policy.name] = kilohertz // 1000
    for device in sorted((system / "sys/class/devfreq").glob("*")):
        hertz = read_number(device / "cur_freq") if _GPU.search(device.name) else None
        if hertz is not None:
            clocks["gpu"] = hertz // 1_000_000
    return clocks
