"""The readings of a board for Prometheus: temperature, throttling, power, disk, drift.

A timer (`edge-llm-readings.timer`) has them written to the folder that the host's node exporter
reads. The chat API cannot know them: its container sees neither the host's /sys nor its files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from .constants import ROOT
from .files import write_atomically
from .host_info.drift import read_drift
from .host_info.hardware import read_disk
from .host_info.sensors import Sensors

FILE = "board.prom"


class Metric(NamedTuple):
    """A gauge: its name, what it tells, and its samples (labels, value)."""

    name: str
    text: str
    samples: List[Tuple[Dict[str, str], float]]


def read_board_metrics(root: Path, system: Path = Path("/")) -> List[Metric]:
    """Return what can be read on this board; a metric without a sample is one it does not have.

    root: the deployment's folder; system: where /sys is.
    """
    sample = Sensors(system).read()
    temperature, rails = sample["temperature"], sample["rails"]
    if not rails and sample["watts"] is not None:
        rails = {sample["watts_of"]: sample["watts"]}
    room = read_disk(root)
    return [
        Metric(
            "edge_llm_board_temperature_celsius",
            "Temperature of the hottest zone of the board or of its cards.",
            [] if temperature is None else [({}, temperature)],
        ),
        Metric(
            "edge_llm_board_throttled",
            "1 while the board is slowed down for a reason.",
            [({"reason": name}, int(now)) for name, now in sorted(sample["throttling"].items())],
        ),
        Metric(
            "edge_llm_board_power_watts",
            "Power that a rail of the board, or what its sensor covers, draws.",
            [({"rail": name}, watts) for name, watts in sorted(rails.items())],
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


def main(arguments: Sequence[str]) -> int:
    """Write the readings to a folder; the exit status is 0."""
    folder = Path(arguments[0])
    text = render(read_board_metrics(Path(os.environ.get("EDGE_LLM_ROOT", ROOT))))
    # Another reading follows soon: no write to the disk is waited for.
    write_atomically(folder / FILE, text.encode(), folder, sync=False)
    return 0
