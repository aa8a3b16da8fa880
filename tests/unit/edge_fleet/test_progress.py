"""What is said while weights come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_fleet.progress import DownloadError, duration, ended, follow, progress

MIB = 1024**2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (99, "99 s"),
        (100, "2 min"),
        (90 * 60 - 1, "90 min"),
        (90 * 60, "1.5 h"),
        (1000 * 3600, "1000.0 h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("told", "line"),
    [
        # As the program tells it first, before it knows anything.
        ({"state": "begun"}, "pi: smoke.gguf-1: starting"),
        (
            {"state": "asking", "size": 100 * MIB},
            "pi: smoke.gguf-1: checking the source, 0 % of 100 MiB",
        ),
        (
            {"state": "fetching", "done": 0, "size": 100 * MIB, "rate": 0, "left": None},
            "pi: smoke.gguf-1: downloading, 0 % of 100 MiB",
        ),
        (
            {
                "state": "fetching",
                "done": 99 * MIB,
                "size": 100 * MIB,
                "rate": 5 * MIB,
                "left": 0,
                "from": ["hub.example"],
            },
            "pi: smoke.gguf-1: downloading, 99 % of 100 MiB, 5.0 MiB/s, 0 s left, from hub.example",
        ),
        # Less than the whole is never said to be all of it.
        (
            {"state": "receiving", "done": 100 * MIB - 1, "size": 100 * MIB},
            "pi: smoke.gguf-1: downloading, 99 % of 100 MiB",
        ),
        (
            {
                "state": "receiving",
                "done": 50 * MIB,
                "size": 100 * MIB,
                "rate": 100 * 1024,
                "left": 512,
                "from": ["the fleet", "hub.example"],
                "peers": 3,
            },
            "pi: smoke.gguf-1: downloading, 50 % of 100 MiB, 0.1 MiB/s, 9 min left, from the fleet"
            " and hub.example",
        ),
        # Reading what has come is no speed of the line, and comes from nobody.
        (
            {
                "state": "verifying",
                "done": 80 * MIB,
                "size": 100 * MIB,
                "rate": 400 * MIB,
                "left": 1,
                "from": ["hub.example"],
            },
            "pi: smoke.gguf-1: verifying, 80 % of 100 MiB",
        ),
        (
            {"state": "thinking", "size": 0, "from": ["hub.example"]},
            "pi: smoke.gguf-1: thinking",
        ),
    ],
)
def test_progress(told: dict[str, Any], line: str) -> None:
    assert progress("pi", {"name": "smoke.gguf-1"} | told) == line


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            {"size": 93.8 * MIB, "seconds": 12.3, "from": ["hub.example"]},
            "pi: smoke.gguf-1: downloaded 94 MiB in 12 s, from hub.example",
        ),
        (
            {"size": 5 * MIB, "seconds": 600, "from": ["the fleet", "hub.example"]},
            "pi: smoke.gguf-1: downloaded 5.0 MiB in 10 min, from the fleet and hub.example",
        ),
        (
            {"size": 5 * MIB, "seconds": 0.4, "from": []},
            "pi: smoke.gguf-1: downloaded 5.0 MiB in 0 s",
        ),
        ({}, "pi: smoke.gguf-1: downloaded 0.0 MiB in 0 s"),
    ],
)
def test_ended(told: dict[str, Any], line: str) -> None:
    assert ended("pi", {"name": "smoke.gguf-1", "state": "done"} | told) == line


def results(*told: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """What the module returns, call after call."""
    left = [{"told": {"name": "smoke.gguf-1", **each}} for each in told]
    return lambda: left.pop(0)


def test_a_download_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come at most every LINE_SECONDS, and one at the end."""
    lines: list[str] = []
    clock = iter([0.0, 5.0, 11.0, 11.0, 15.0])
    monkeypatch.setattr("edge_fleet.progress.time.monotonic", lambda: next(clock))
    size = {"size": 100 * MIB}
    result = follow(
        results(
            {"state": "asking", **size},
            {"state": "fetching", "done": 50 * MIB, **size},
            {"state": "verifying", "done": 50 * MIB, **size},
            {"state": "done", "seconds": 15, "from": ["hub.example"], "torrent": "", **size},
        ),
        lines.append,
        "pi",
    )
    assert result["changed"] is True
    assert result["told"]["state"] == "done"
    assert lines == [
        "pi: smoke.gguf-1: downloading, 50 % of 100 MiB",
        "pi: smoke.gguf-1: downloaded 100 MiB in 15 s, from hub.example",
    ]


def test_what_came_from_nowhere_is_no_change() -> None:
    lines: list[str] = []
    result = follow(results({"state": "done", "from": []}), lines.append, "pi")
    assert (result["changed"], lines) == (False, [])


@pytest.mark.parametrize("result", [{"failed": True, "msg": "no"}, {"told": {}}])
def test_a_result_without_a_download_is_returned(result: dict[str, Any]) -> None:
    """A module that failed, and one in a check run."""
    assert follow(lambda: result, print, "pi") == result


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"state": "failed", "reason": "the disk is full"}, "the disk is full"),
        ({"state": "stopped", "reason": "it was stopped"}, "it was stopped"),
        ({"state": "gone"}, "the download was killed\\. Run this again"),
    ],
)
def test_a_download_that_did_not_end_well(told: dict[str, Any], reason: str) -> None:
    with pytest.raises(DownloadError, match=f"^{reason}"):
        follow(results(told), print, "pi")
