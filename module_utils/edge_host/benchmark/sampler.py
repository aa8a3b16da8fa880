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
from typing import Any, Iterator, Optional

from ..commands import SEARCH_PATH, end_session, which
from ..files import read_json
from ..host_info.sensors import Sensors
from ..json_data import Facts

FOLDER = Path("/run/edge-llm-benchmark")
"""Root's own: nobody else can put a file there."""
INTERVAL = 1.0
MOST_SECONDS = 3600
"""Seconds after which a sampler ends, whatever was asked for: a run that broke off leaves one."""
_CURRENT, _READINGS = "sampler.json", "readings.json"


class SamplerError(Exception):
    """A message without its full stop."""


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
