"""The readings of a board for Prometheus: temperature, throttling, power, disk, drift.

A timer (`edge-llm-readings.timer`) has them written to the folder that the host's node exporter
reads. The chat API cannot know them: its container sees neither the host's /sys nor its files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .commands import run_together, which
from .constants import DEPLOYED_FILES, MODELS, ROOT
from .files import entries, read_file, read_text, write_atomically
from .host_info.board import BOARD_COMMANDS
from .host_info.deployment import read_release
from .host_info.hardware import read_disk, read_temperature
from .host_info.raspberry_pi import THROTTLED_NOW, parse_throttled
from .host_info.weights import read_models
from .json_data import Facts

FILE = "board.prom"
WEIGHTS = "weights"
"""What a model's files are called as the subject of a drift."""
_SECONDS = 10.0
# The kernel's ways to make a processor slower; a fan is a cooling device, too.
_COOLING = re.compile(r"cpufreq|devfreq|^Processor$")
_CHANNELS = range(1, 9)


class Metric(NamedTuple):
    """A gauge: its name, what it tells, and its samples (labels, value)."""

    name: str
    text: str
    samples: List[Tuple[Dict[str, str], float]]


def read_board_metrics(root: Path, system: Path = Path("/")) -> List[Metric]:
    """Return what can be read on this board; a metric without a sample is one it does not have.

    root: the deployment's folder; system: where /sys is.
    """
    temperature = read_temperature(system)
    room = read_disk(root)
    return [
        Metric(
            "edge_llm_board_temperature_celsius",
            "Temperature of the board's hottest zone.",
            [] if temperature is None else [({}, temperature)],
        ),
        Metric(
            "edge_llm_board_throttled",
            "1 while the board is slowed down for a reason.",
            [({"reason": name}, int(now)) for name, now in sorted(read_throttled(system).items())],
        ),
        Metric(
            "edge_llm_board_power_watts",
            "Power that a rail of the board draws.",
            [({"rail": name}, watts) for name, watts in sorted(read_rails(system).items())],
        ),
        Metric(
            "edge_llm_board_disk_free_bytes",
            "Room on the file system of the deployment.",
            [({}, room["free"])],
        ),
        Metric(
            "edge_llm_board_disk_size_bytes",
            "Size of the file system of the deployment.",
            [({}, room["total"])],
        ),
        Metric(
            "edge_llm_board_drift",
            "1 while a part of the release is not as it was deployed.",
            [({"subject": name}, int(differs)) for name, differs in read_drift(root).items()],
        ),
    ]


def read_throttled(system: Path) -> Dict[str, bool]:
    """Return the reasons to be slowed down that the board can tell, and whether each holds now."""
    reasons: Dict[str, bool] = {}
    command = which(BOARD_COMMANDS["throttled"][0])
    if command is not None:
        words = [command, *BOARD_COMMANDS["throttled"][1:]]
        found = parse_throttled(run_together({"": words}, _SECONDS)[""].out)
        if found is not None:
            reasons = {name.rpartition(" ")[0]: name in found for name in THROTTLED_NOW}
    states = [
        _number(device / "cur_state") or 0
        for device in (system / "sys/class/thermal").glob("cooling_device*")
        if _COOLING.search((read_text(device / "type") or "").strip())
    ]
    if states:
        reasons["temperature"] = any(state > 0 for state in states)
    return reasons


def read_rails(system: Path) -> Dict[str, float]:
    """Return the watts of each rail that a Jetson's INA3221 measures, by the rails' names."""
    rails = {}
    for chip in entries(system / "sys/class/hwmon"):
        if (read_text(chip / "name") or "").strip() != "ina3221":
            continue
        for channel in _CHANNELS:
            name = (read_text(chip / f"in{channel}_label") or "").strip()
            millivolts = _number(chip / f"in{channel}_input")
            milliamperes = _number(chip / f"curr{channel}_input")
            # The sum of the others is a channel of its own, without a voltage.
            if name and millivolts is not None and milliamperes is not None:
                rails[name] = millivolts * milliamperes / 1e6
    return rails


def read_drift(root: Path) -> Dict[str, bool]:
    """Return which parts of the current release differ from what was deployed.

    Empty for a host without a release. A part differs that was edited, replaced or removed.
    """
    release = read_release(root, "current")
    if release is None:
        return {}
    written = _mapping(release.get("written"))
    drift = {}
    for name in DEPLOYED_FILES:
        found = read_file((root / name).resolve())
        drift[name] = found is None or found["sha256"] != written.get(name)
    drift[WEIGHTS] = _weights_differ(root, release)
    return drift


def _weights_differ(root: Path, release: Facts) -> bool:
    """Whether a file of the model is missing or has changed since its content was verified."""
    found = read_models(root / Path(MODELS).name)
    files = _mapping(_mapping(release.get("plan")).get("model")).get("files")
    return any(
        found.get(str(each.get("path")), {}).get("recorded_sha256") != each.get("sha256")
        for each in (files if isinstance(files, list) else [])
    )


def render(metrics: Sequence[Metric]) -> str:
    """Return metrics in Prometheus' text format."""
    return "".join(f"{line}\n" for each in metrics if each.samples for line in _lines(each))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.text}"
    yield f"# TYPE {metric.name} gauge"
    for labels, value in metric.samples:
        shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        yield f"{metric.name}{{{shown}}} {value!r}" if shown else f"{metric.name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(path: Path) -> Optional[int]:
    """The number in a file of /sys; None where it has none."""
    text = (read_text(path) or "").strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,12}", text) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def main(arguments: Sequence[str]) -> int:
    """Write the readings to a folder; the exit status is 0."""
    folder = Path(arguments[0])
    text = render(read_board_metrics(Path(os.environ.get("EDGE_LLM_ROOT", ROOT))))
    # Another reading follows soon: no write to the disk is waited for.
    write_atomically(folder / FILE, text.encode(), folder, sync=False)
    return 0
