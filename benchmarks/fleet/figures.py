"""Figures of runs: medians, the slope over the number of hosts, rows, and what is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import verdict

NO_CHANGE, CHANGED, ALONE, DRIFTED, DOWN, REPLAYED = (
    "site.yml: no change",
    "site.yml: one host changed",
    "site.yml: the changed host alone",
    "site.yml: one file drifted on each board",
    "site.yml: one host down",
    "site.yml: no change, hosts replayed",
)
PYINFRA, PLAYBOOK = "pyinfra: small job, no change", "plain playbook: small job, no change"
COLUMNS = (
    "run",
    "hosts",
    "boards",
    "wall",
    "slowest",
    "CPU",
    "memory",
    "SSH memory",
    "calls/host",
    "most calls",
    "KiB/host",
)
SLOPE, LARGE_SECONDS, LARGE_MIB, JUDGED_SIZE = 0.2, 40.0, 500.0, 20
"""Seconds for each host more; what a large fleet may take; the size that is compared."""


@dataclass(frozen=True)
class Run:
    """One run: wall and CPU seconds, peaks of memory (MiB), and what the hosts saw of it."""

    seconds: float
    cpu: float
    peak: float
    ssh: float
    """Of SSH's processes, which `peak` leaves out."""
    calls: Mapping[str, int]
    """Remote calls by host; one that saw none may be missing."""
    sent: int
    """Bytes to and from all hosts together."""


@dataclass(frozen=True)
class Subject:
    """All runs of one kind at one size."""

    name: str
    hosts: int
    boards: int
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        return median(run.seconds for run in self.runs)

    @property
    def peak(self) -> float:
        return max(run.peak for run in self.runs)

    @property
    def ssh(self) -> float:
        return max(run.ssh for run in self.runs)


def row(subject: Subject) -> list[str]:
    """The cells of COLUMNS: medians, and the worst where the column says so."""
    runs = subject.runs
    calls = [sum(run.calls.values()) / subject.hosts for run in runs]
    return [
        subject.name,
        str(subject.hosts),
        str(subject.boards) if subject.boards else "-",
        f"{subject.seconds:.1f} s",
        f"{max(run.seconds for run in runs):.1f} s",
        f"{median(run.cpu for run in runs):.1f} s",
        f"{subject.peak:.0f} MiB",
        f"{subject.ssh:.0f} MiB",
        f"{median(calls):.1f}",
        str(max((number for run in runs for number in run.calls.values()), default=0)),
        f"{median(run.sent for run in runs) / subject.hosts / 1024:.1f}",
    ]


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of the line of least squares through the points; None where all have one x."""
    if len({x for x, _ in points}) < 2:
        return None
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread


def verdicts(subjects: Sequence[Subject]) -> list[str]:
    """A sentence for each thing that is judged; a size that was not run is not judged."""
    by_size: dict[int, dict[str, Subject]] = {}
    for subject in subjects:
        by_size.setdefault(subject.hosts, {})[subject.name] = subject
    sentences = []
    judged = by_size.get(JUDGED_SIZE, {})
    if NO_CHANGE in judged and PYINFRA in judged:
        sentences.append(
            verdict(
                f"No change on {JUDGED_SIZE} hosts, against pyinfra's small job",
                judged[NO_CHANGE].seconds, judged[PYINFRA].seconds, most=True, unit=" s",
            )
        )  # fmt: skip
    alone = next((subject.seconds for subject in subjects if subject.name == ALONE), None)
    if CHANGED in judged and NO_CHANGE in judged and alone is not None:
        sentences.append(
            verdict(
                f"One of {JUDGED_SIZE} hosts changed, against its own change and no change",
                judged[CHANGED].seconds, alone + judged[NO_CHANGE].seconds, most=True, unit=" s",
            )
        )  # fmt: skip
    points = [(each.hosts, each.seconds) for each in subjects if each.name == NO_CHANGE]
    if len(points) > 1:
        found = slope(points)
        sentences.append(verdict("Each host more", found, SLOPE, most=True, unit=" s"))
    for subject in subjects:
        if subject.name == REPLAYED:
            what = f"{subject.hosts} hosts, the control machine alone"
            memory = subject.peak + subject.hosts * _ssh_of_a_host(subjects)
            sentences += [
                verdict(what, subject.seconds, LARGE_SECONDS, most=True, unit=" s"),
                verdict(f"{what}, with SSH", memory, LARGE_MIB, most=True, unit=" MiB"),
            ]
    return sentences


def _ssh_of_a_host(subjects: Sequence[Subject]) -> float:
    """MiB that SSH takes for each host: as measured where it was SSH, and most hosts were there."""
    real = [subject for subject in subjects if subject.name == NO_CHANGE]
    largest = max(real, key=lambda subject: subject.hosts, default=None)
    return largest.ssh / largest.hosts if largest else 0.0
