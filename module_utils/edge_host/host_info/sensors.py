"""The sensors of a board, read at once: power, load, memory, temperature, clocks, throttling."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Dict

from ..commands import run_together, which
from ..files import read_text
from ..json_data import Facts
from .clocks import read_clocks
from .hardware import parse_memory, read_temperature
from .power import (
    NVIDIA_SMI,
    PMIC_COMMAND,
    choose_watts,
    parse_nvidia_smi,
    parse_pmic_adc,
    parse_tegrastats,
    read_gpu_load,
    read_ina3221,
)
from .raspberry_pi import THROTTLED_COMMAND, parse_throttled
from .throttling import read_slowdowns, read_throttling

SECONDS = 5.0
"""The time that a board's commands have for a sample."""


class Sensors:
    """The sensors of a board. A command that it does not have is not looked for again."""

    def __init__(self, system: Path = Path("/")) -> None:
        self._system = system
        self._commands = {
            name: [path, *words[1:]]
            for name, words in {
                "throttled": THROTTLED_COMMAND,
                "pmic": PMIC_COMMAND,
            }.items()
            for path in [which(words[0])]
            if path
        }
        smi = which("nvidia-smi")
        for words in NVIDIA_SMI if smi else ():
            command = [str(smi), *words[1:]]
            answer = run_together({"cards": command}, SECONDS)["cards"]
            if parse_nvidia_smi(answer.out) is not None:
                self._commands["cards"] = command
                break
        self.tegrastats = ""
        """Its last line, which `follow_tegrastats` writes."""

    def read(self) -> Facts:
        """One sample; None for what the board does not tell."""
        answers = run_together(self._commands, SECONDS)
        texts = {name: each.out for name, each in answers.items()}
        cards = parse_nvidia_smi(texts.get("cards", ""))
        tegra = parse_tegrastats(self.tegrastats)
        pmic = parse_pmic_adc(texts.get("pmic", ""))
        rails = read_ina3221(self._system)
        watts, source = choose_watts(rails, tegra, pmic, cards)
        memory = parse_memory(read_text(self._system / "proc/meminfo") or "")
        busy = [read_gpu_load(self._system), tegra["gpu_percent"]]
        busy.append(cards["gpu_percent"] if cards else None)
        temperatures = [read_temperature(self._system), cards["temperature"] if cards else None]
        return {
            "at": time.time(),
            "watts": watts,
            "watts_of": source,
            "rails": rails,
            "gpu_percent": next((each for each in busy if each is not None), None),
            "gpu_memory": cards["gpu_memory"] if cards else None,
            "memory_used": memory["MemTotal"] - memory["MemAvailable"]
            if {"MemTotal", "MemAvailable"} <= memory.keys()
            else None,
            "temperature": max((each for each in temperatures if each is not None), default=None),
            "clocks": {
                **read_clocks(self._system),
                **({"gpu": int(cards["gpu_mhz"])} if cards and cards["gpu_mhz"] else {}),
            },
            "throttling": read_throttling(
                self._system,
                parse_throttled(texts.get("throttled", "")),
                cards["throttling"] if cards else None,
            ),
        }

    def slowdowns(self) -> Dict[str, int]:
        """Counters of slowdowns since the start of the board."""
        return read_slowdowns(self._system)
