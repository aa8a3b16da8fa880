"""How the benchmark of weights judges what it has measured."""

from __future__ import annotations

import pytest

from benchmarks.weights import EIGHT, ONE, SIZE, judge, ratios


@pytest.mark.parametrize(
    ("seconds", "status", "verdicts"),
    [
        ((100.0, 80.0), 0, ("2 times; wanted: at most 2 times: met.", "1.6 times; ")),
        ((100.5, 80.0), 1, ("2.01 times; wanted: at most 2 times: NOT MET.", "1.6 times; ")),
        ((60.0, 125.0), 1, ("1.2 times; ", "2.5 times; wanted: at most 2 times: NOT MET.")),
    ],
)
def test_eight_boards_take_at_most_twice_the_time_of_one(
    seconds: tuple[float, float], status: int, verdicts: tuple[str, str]
) -> None:
    rows = {ONE: (50.0, SIZE), "get_url, eight boards": (400.0, SIZE)}
    found = ratios(rows | {name: (each, SIZE) for name, each in zip(EIGHT, seconds, strict=True)})
    assert found[ONE] == 1
    sentences, ended = judge(found)
    assert ended == status
    for name, verdict, sentence in zip(EIGHT, verdicts, sentences, strict=True):
        assert sentence.startswith(f"{name}: {verdict}")
