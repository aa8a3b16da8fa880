"""Reads a board's sensors while somebody else puts a load on it.

One sampler runs at a time: a file says who, and how long. It ends when that file is gone or names
another one, and in any case at its time limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from ..commands import SEARCH_PATH, end_session, run_together, which
from ..files import read_json, read_text
from ..host_info.clocks import read_alerts, read_clocks, read_slowdowns
from ..host_info.hardware import parse_memory, read_temperature
from ..host_info.power import (
    NVIDIA_SMI,
    choose_watts,
    parse_nvidia_smi,
    parse_pmic_adc,
    parse_tegrastats,
    read_gpu_load,
    read_ina3221,
)
from ..host_info.raspberry_pi import parse_throttled
from ..json_data import Facts

FOLDER = Path("/run/edge-llm-benchmark")
"""Root's own: nobody else can put a file there."""
INTERVAL = 1.0
MOST_SECONDS = 3600
"""Seconds after which a sampler ends, whatever was asked for: a run that broke off leaves one."""
_COMMAND_SECONDS = 5.0
_CURRENT, _READINGS = "sampler.json", "readings.json"


class SamplerError(Exception):
    """A message without its full stop."""


class Sensors:
    """The sensors of a board. A command that it does not have is not looked for again."""

    def __init__(self, system: Path = Path("/")) -> None:
        self._system = system
        self._commands = {
            name: [path, *words[1:]]
            for name, words in {
                "throttled": ("vcgencmd", "get_throttled"),
                "pmic": ("vcgencmd", "pmic_read_adc"),
            }.items()
            for path in [which(words[0])]
            if path
        }
        smi = which("nvidia-smi")
        for words in NVIDIA_SMI if smi else ():
            command = [str(smi), *words[1:]]
            answer = run_together({"cards": command}, _COMMAND_SECONDS)["cards"]
            if parse_nvidia_smi(answer.out) is not None:
                self._commands["cards"] = command
                break
        self.tegrastats = ""
        """Its last line, which `follow_tegrastats` writes."""

    def read(self) -> Facts:
        """One sample; None for what the board does not tell."""
        answers = run_together(self._commands, _COMMAND_SECONDS)
        texts = {name: each.out for name, each in answers.items()}
        cards = parse_nvidia_smi(texts.get("cards", ""))
        tegra = parse_tegrastats(self.tegrastats)
        pmic = parse_pmic_adc(texts.get("pmic", ""))
        watts, source = choose_watts(read_ina3221(self._system), tegra, pmic, cards)
        memory = parse_memory(read_text(self._system / "proc/meminfo") or "")
        busy = [read_gpu_load(self._system), tegra["gpu_percent"]]
        busy.append(cards["gpu_percent"] if cards else None)
        temperatures = [read_temperature(self._system), cards["temperature"] if cards else None]
        return {
            "at": time.time(),
            "watts": watts,
            "watts_of": source,
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
            "throttling": self._throttling(texts.get("throttled", ""), cards),
        }

    def slowdowns(self) -> Dict[str, int]:
        """Counters of slowdowns since the start of the board."""
        return read_slowdowns(self._system)

    def _throttling(self, throttled: str, cards: Optional[Facts]) -> List[str]:
        """What slows the board down at this moment."""
        found = [each for each in parse_throttled(throttled) or [] if each.endswith(" now")]
        found += cards["throttling"] if cards else []
        found += [name for name, on in sorted(read_alerts(self._system).items()) if on]
        return found


@contextlib.contextmanager
def follow_tegrastats(sensors: Sensors) -> Iterator[None]:
    """Have the last line of a Jetson's tegrastats in `sensors`; nothing on any other board."""
    path = which("tegrastats")
    if path is None:
        yield
        return
    process = subprocess.Popen(
        [path, "--interval", str(int(INTERVAL * 1000))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        env=dict(os.environ, PATH=SEARCH_PATH, LC_ALL="C"),
        start_new_session=True,
    )

    def keep() -> None:
        for line in process.stdout or ():
            sensors.tegrastats = line

    reader = threading.Thread(target=keep, daemon=True)
    reader.start()
    try:
        yield
    finally:
        end_session(process)


def sample(
    name: str, seconds: float, folder: Path = FOLDER, sensors: Optional[Sensors] = None
) -> Facts:
    """Read the sensors until `stop`, another sampler, or the time limit; returns the readings.

    name: what the caller calls this sampler, for `stop`. The readings are kept in `folder`, too.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    current = folder / _CURRENT
    with contextlib.suppress(FileNotFoundError):
        (folder / _READINGS).unlink()
    current.write_text(json.dumps({"name": name}))
    sensors = sensors or Sensors()
    limit = time.monotonic() + min(seconds, MOST_SECONDS)
    before, samples = sensors.slowdowns(), []
    with follow_tegrastats(sensors):
        while True:
            begun = time.monotonic()
            samples.append(sensors.read())
            if not _is_current(current, name) or begun >= limit:
                break
            _wait(current, name, begun + INTERVAL)
    slower = [key for key, count in sensors.slowdowns().items() if count > before.get(key, 0)]
    readings = {"name": name, "samples": samples, "slowdowns": sorted(slower)}
    written = folder / f".{_READINGS}.{os.getpid()}"
    written.write_text(json.dumps(readings))
    written.replace(folder / _READINGS)
    return readings


def stop(name: str, caller_time: float, folder: Path = FOLDER, wait: float = 60.0) -> Facts:
    """End the sampler `name` and return its readings, with the times of the caller's clock.

    caller_time: what that clock tells now; boards without a battery have another time. Raises
    SamplerError where there are none.
    """
    difference = time.time() - caller_time
    current = folder / _CURRENT
    if not _is_current(current, name):
        raise SamplerError(
            "the sampler is missing: it has ended, or another benchmark has started one on this"
            " host. Run one benchmark at a time"
        )
    current.unlink()
    limit = time.monotonic() + wait
    while True:
        readings = read_json(folder / _READINGS)
        if readings and readings.get("name") == name:
            break
        if time.monotonic() > limit:
            raise SamplerError(
                f"the readings are missing: the sampler has not written them within {wait:g} s."
                " A command of the board hangs: run vcgencmd, nvidia-smi or tegrastats by hand"
            )
        time.sleep(0.1)
    (folder / _READINGS).unlink()
    for each in readings["samples"]:
        each["at"] -= difference
    return readings


def _is_current(current: Path, name: str) -> bool:
    found: Any = read_json(current)
    return bool(found) and found.get("name") == name


def _wait(current: Path, name: str, until: float) -> None:
    """Wait until a moment, or until the sampler is to end."""
    while time.monotonic() < until and _is_current(current, name):
        time.sleep(0.1)
