"""Watts that a board's own sensors tell, and what the same commands tell besides.

No board here has a meter of the whole: what a reading covers stands beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ..files import read_number, read_text
from ..json_data import Facts

# Rails that have the others behind them: the input of the module, or of the carrier board.
_TOTALS = ("VDD_IN", "POM_5V_IN")
_NO_RAIL = re.compile(r"^NC$|sum of shunt")
PMIC_COMMAND = ("vcgencmd", "pmic_read_adc")
NVIDIA_SMI = tuple(
    (
        "nvidia-smi",
        "--query-gpu=name,power.draw,utilization.gpu,memory.used,temperature.gpu,clocks.sm,"
        + reasons,
        "--format=csv,noheader,nounits",
    )
    for reasons in ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
)
"""The command by newer drivers' name of the last field, and by older ones': a driver that does not
know a field prints nothing else."""
# nvmlClocksThrottleReasons. Idle (1), set clocks (2, 0x100) and the power limit that the card is
# set to (4) are how it is to run.
CARD_SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""What slows a card down, by its bit in the mask that nvidia-smi prints."""
# A Jetson's own GPU, which nvidia-smi names from JetPack 6 on, and of which it tells nothing else.
_OWN_GPU = re.compile(r"\(nvgpu\)")


def total_watts(rails: Dict[str, float]) -> Optional[float]:
    """Watts of a board from those of its rails: its input's, else the sum; None without rails.

    An Orin Nano or NX has VDD_IN; an AGX has rails beside each other.
    """
    for name in _TOTALS:
        if name in rails:
            return rails[name]
    return sum(rails.values()) if rails else None


def parse_pmic_adc(text: str) -> Optional[float]:
    """Watts of the rails behind a Raspberry Pi 5's power chip; None for any other answer.

    From `vcgencmd pmic_read_adc`. USB devices and the losses of the chip are not among them.
    """
    found: Dict[str, Dict[str, float]] = {"A": {}, "V": {}}
    for name, unit, value in re.findall(
        r"^\s*(\w+)_([AV]) +(?:current|volt)\(\d+\)=([0-9.]{1,16})[AV]\s*$", text, re.M
    ):
        found[unit][name] = float(value)
    both = found["A"].keys() & found["V"].keys()
    return sum(found["A"][name] * found["V"][name] for name in both) if both else None


def parse_tegrastats(line: str) -> Facts:
    """{"watts", "gpu_percent"} of a line of tegrastats; None for what it does not have.

    Releases differ: `VDD_IN 4542mW/4000mW` (now, average), three values, or none with `mW`.
    """
    load = re.search(r"\bGR3D_FREQ (\d{1,3})%", line)
    rails = re.findall(r"\b((?:VDD|VIN|POM)_\w+|NC|GPU|CPU|SOC|CV|VDDRQ|SYS5V) (\d{1,7})mW/", line)
    old = re.findall(r"\b((?:VDD|VIN|POM)_\w+) (\d{1,7})/\d{1,7}\b", line)
    watts = {name: int(value) / 1000 for name, value in rails or old if name != "NC"}
    return {
        "watts": total_watts(watts),
        "gpu_percent": int(load.group(1)) if load else None,
    }


def parse_nvidia_smi(text: str) -> Optional[Facts]:
    """What the cards of a host do, from a command of NVIDIA_SMI; None without a card.

    {"watts" of all together, "gpu_percent" (the mean), "gpu_memory" in bytes, "temperature" (the
    highest), "gpu_mhz" (the lowest), "throttling": [reason]}; None for what no card tells.
    """
    columns: List[List[float]] = [[], [], [], [], []]
    reasons = 0
    cards = 0
    for line in text.splitlines():
        name, *values = [each.strip() for each in line.split(",")]
        if len(values) != 6 or _OWN_GPU.search(name):
            continue
        cards += 1
        for column, value in zip(columns, values):  # noqa: B905 (strict is of Python 3.10)
            if re.fullmatch(r"[0-9.]{1,12}", value):
                column.append(float(value))
        if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", values[5]):
            reasons |= int(values[5], 16)
    if not cards:
        return None
    watts, load, memory, temperature, clock = columns
    return {
        "watts": sum(watts) if watts else None,
        "gpu_percent": sum(load) / len(load) if load else None,
        "gpu_memory": int(sum(memory)) << 20 if memory else None,
        "temperature": max(temperature, default=None),
        "gpu_mhz": min(clock, default=None),
        "throttling": [words for bit, words in CARD_SLOWDOWNS.items() if reasons & bit],
    }


def read_ina3221(system: Path) -> Dict[str, float]:
    """Watts of each rail that an INA3221 of a Jetson measures, by the rails' names.

    From hwmon (in1_label, in1_input in mV, curr1_input in mA; JetPack 5 and later), else from iio
    (rail_name_0, in_power0_input in mW; JetPack 4).
    """
    rails = {}
    for folder in sorted((system / "sys/class/hwmon").glob("hwmon*")):
        if (read_text(folder / "name") or "").strip() != "ina3221":
            continue
        for number in (1, 2, 3):
            name = (read_text(folder / f"in{number}_label") or "").strip()
            volts = read_number(folder / f"in{number}_input")
            amperes = read_number(folder / f"curr{number}_input")
            if name and not _NO_RAIL.search(name) and volts is not None and amperes is not None:
                rails[name] = volts * amperes / 1e6
    for folder in sorted((system / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
        for number in (0, 1, 2):
            name = (read_text(folder / f"rail_name_{number}") or "").strip()
            power = read_number(folder / f"in_power{number}_input")
            if name and not _NO_RAIL.search(name) and power is not None:
                rails[name] = power / 1000
    return rails


def read_gpu_load(system: Path) -> Optional[float]:
    """How busy a Jetson's GPU is, in percent; None on any other board."""
    for name in ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load"):
        load = read_number(system / name)
        if load is not None:
            return min(load, 1000) / 10
    return None


def choose_watts(
    rails: Dict[str, float], tegrastats: Facts, pmic: Optional[float], cards: Optional[Facts]
) -> Tuple[Optional[float], Optional[str]]:
    """(watts, what they are of) from the best of a board's sensors; (None, None) without any."""
    found = total_watts(rails)
    if found is not None:
        return found, "INA3221: " + next((name for name in _TOTALS if name in rails), "all rails")
    if tegrastats.get("watts") is not None:
        return tegrastats["watts"], "tegrastats"
    if pmic is not None:
        return pmic, "pmic_read_adc: rails of the power chip"
    if cards and cards["watts"] is not None:
        return cards["watts"], "nvidia-smi: the cards alone"
    return None, None
