"""Figures of runs over a fleet, and what is judged."""

from __future__ import annotations

import pytest

from benchmarks.fleet import figures
from benchmarks.fleet.figures import Run, Subject


def subject(
    name: str, hosts: int, *seconds: float, peak: float = 100.0, ssh: float = 0.5
) -> Subject:
    runs = tuple(
        Run(each, each / 2, peak, ssh * hosts, {"a": 1, "b": 3}, 4096 * hosts) for each in seconds
    )
    return Subject(name, hosts, 2, runs)


def test_a_row_has_medians_and_the_worst() -> None:
    found = figures.row(subject("no change", 2, 5.0, 9.0, 6.0))
    assert dict(zip(figures.COLUMNS, found, strict=True)) == {
        "run": "no change",
        "hosts": "2",
        "boards": "2",
        "wall": "6.0 s",
        "slowest": "9.0 s",
        "CPU": "3.0 s",
        "memory": "100 MiB",
        "SSH memory": "1 MiB",
        "calls/host": "2.0",
        "most calls": "3",
        "KiB/host": "4.0",
    }


def test_hosts_without_a_board_are_said_to_have_none() -> None:
    run = Run(1.0, 1.0, 1.0, 1.0, {}, 0)
    found = dict(
        zip(figures.COLUMNS, figures.row(Subject("replayed", 200, 0, (run,))), strict=True)
    )
    assert (found["boards"], found["calls/host"], found["most calls"]) == ("-", "0.0", "0")


@pytest.mark.parametrize(
    ("points", "found"),
    [
        ([(2, 4.0), (5, 5.5), (10, 8.0)], 0.5),
        # Least squares: 10 and 14 are off the line through 0 by as much as it takes.
        ([(0, 0.0), (1, 10.0), (2, 14.0)], 7.0),
        ([(20, 5.0), (20, 6.0)], None),
        ([], None),
    ],
)
def test_slope(points: list[tuple[float, float]], found: float | None) -> None:
    assert figures.slope(points) == (None if found is None else pytest.approx(found))


def test_all_that_is_wanted_is_judged() -> None:
    met = [
        subject(figures.NO_CHANGE, 2, 5.0),
        subject(figures.NO_CHANGE, 20, 7.0),
        subject(figures.PYINFRA, 20, 8.0),
        subject(figures.CHANGED, 20, 19.0),
        subject(figures.ALONE, 1, 13.0),
        subject(figures.REPLAYED, 200, 39.0, peak=350.0),
    ]
    assert figures.verdicts(met) == [
        "No change on 20 hosts, against pyinfra's small job: 7 s; wanted: at most 8 s: met.",
        "One of 20 hosts changed, against its own change and no change: 19 s; wanted: at most 20"
        " s: met.",
        "Each host more: 0.111 s; wanted: at most 0.2 s: met.",
        "200 hosts, the control machine alone: 39 s; wanted: at most 40 s: met.",
        # 350 MiB, and half a MiB for each connection, as with 20 real hosts.
        "200 hosts, the control machine alone, with SSH: 450 MiB; wanted: at most 500 MiB: met.",
    ]


def test_what_is_not_met_is_said() -> None:
    missed = [
        subject(figures.NO_CHANGE, 2, 5.0),
        subject(figures.NO_CHANGE, 20, 9.0),
        subject(figures.PYINFRA, 20, 8.0),
        subject(figures.CHANGED, 20, 23.0),
        subject(figures.ALONE, 1, 13.0),
        subject(figures.REPLAYED, 200, 41.0, peak=401.0),
    ]
    sentences = figures.verdicts(missed)
    assert len(sentences) == 5
    assert all(sentence.endswith("NOT MET.") for sentence in sentences)


def test_sizes_that_were_not_run_are_not_judged() -> None:
    assert (
        figures.verdicts([subject(figures.NO_CHANGE, 5, 5.0), subject(figures.PYINFRA, 5, 1)]) == []
    )
