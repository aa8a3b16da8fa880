"""The lines that a download shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_fleet.progress import DownloadError, duration, ended, follow, progress

MIB = 1024**2


@pytest.mark.parametrize(
    ("seconds", "text"),
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
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("status", "line"),
    [
        # The first status, before the program knows more.
        ({"state": "begun"}, "pi: smoke.gguf-1: starting"),
        (
            {"state": "asking", "size": 100 * MIB},
            "pi: smoke.gguf-1: checking the source, 0 % of 100 MiB",
        ),
        (
            {"state": "fetching", "done": 0, "size": 100 * MIB, "rate": 0, "seconds_left": None},
            "pi: smoke.gguf-1: downloading, 0 % of 100 MiB",
        ),
        (
            {
                "state": "fetching",
                "done": 99 * MIB,
                "size": 100 * MIB,
                "rate": 5 * MIB,
                "seconds_left": 0,
                "sources": ["hub.example"],
            },
            "pi: smoke.gguf-1: downloading, 99 % of 100 MiB, 5.0 MiB/s, 0 s left, from hub.example",
        ),
        # A part is never shown as the whole.
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
                "seconds_left": 512,
                "sources": ["the fleet", "hub.example"],
                "peers": 3,
            },
            "pi: smoke.gguf-1: downloading, 50 % of 100 MiB, 0.1 MiB/s, 9 min left, from the fleet"
            " and hub.example",
        ),
        # The rate and the sources are those of a download, not of the verification.
        (
            {
                "state": "verifying",
                "done": 80 * MIB,
                "size": 100 * MIB,
                "rate": 400 * MIB,
                "seconds_left": 1,
                "sources": ["hub.example"],
            },
            "pi: smoke.gguf-1: verifying, 80 % of 100 MiB",
        ),
        (
            {"state": "thinking", "size": 0, "sources": ["hub.example"]},
            "pi: smoke.gguf-1: thinking",
        ),
    ],
)
def test_progress(status: dict[str, Any], line: str) -> None:
    assert progress("pi", {"name": "smoke.gguf-1"} | status) == line


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            {"size": 93.8 * MIB, "seconds": 12.3, "sources": ["hub.example"]},
            "pi: smoke.gguf-1: downloaded 94 MiB in 12 s, from hub.example",
        ),
        (
            {"size": 5 * MIB, "seconds": 600, "sources": ["the fleet", "hub.example"]},
            "pi: smoke.gguf-1: downloaded 5.0 MiB in 10 min, from the fleet and hub.example",
        ),
        (
            {"size": 5 * MIB, "seconds": 0.4, "sources": []},
            "pi: smoke.gguf-1: downloaded 5.0 MiB in 0 s",
        ),
        ({}, "pi: smoke.gguf-1: downloaded 0.0 MiB in 0 s"),
    ],
)
def test_ended(status: dict[str, Any], line: str) -> None:
    assert ended("pi", {"name": "smoke.gguf-1", "state": "done"} | status) == line


def results(*statuses: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """What the module returns, call after call."""
    remaining = [{"download": {"name": "smoke.gguf-1", **each}} for each in statuses]
    return lambda: remaining.pop(0)


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
            {"state": "done", "seconds": 15, "sources": ["hub.example"], "torrent": "", **size},
        ),
        lines.append,
        "pi",
    )
    assert result["changed"] is True
    assert result["download"]["state"] == "done"
    assert lines == [
        "pi: smoke.gguf-1: downloading, 50 % of 100 MiB",
        "pi: smoke.gguf-1: downloaded 100 MiB in 15 s, from hub.example",
    ]


def test_without_a_download_nothing_has_changed() -> None:
    lines: list[str] = []
    result = follow(results({"state": "done", "sources": []}), lines.append, "pi")
    assert (result["changed"], lines) == (False, [])


@pytest.mark.parametrize("result", [{"failed": True, "msg": "no"}, {"download": {}}])
def test_a_result_without_a_download_is_returned(result: dict[str, Any]) -> None:
    """A module that failed, and one in a check run."""
    assert follow(lambda: result, print, "pi") == result


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"state": "failed", "reason": "the disk is full"}, "the disk is full"),
        ({"state": "stopped", "reason": "it was stopped"}, "it was stopped"),
        ({"state": "gone"}, "the download was killed\\. Run this again"),
    ],
)
def test_a_download_that_did_not_end_well(status: dict[str, Any], reason: str) -> None:
    with pytest.raises(DownloadError, match=f"^{reason}"):
        follow(results(status), print, "pi")
