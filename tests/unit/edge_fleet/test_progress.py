"""The lines that a download shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_fleet import progress as module
from edge_fleet.progress import (
    LIMIT_SECONDS,
    STALL_SECONDS,
    DownloadError,
    checked_status,
    duration,
    ended,
    follow,
    progress,
)
from edge_fleet.text import clean_text

MIB = 1024**2
JOB = {"name": "smoke.gguf-1", "files": [{"size": 60 * MIB}, {"size": 40 * MIB}]}


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
            {"state": "done", "seconds": 15, "sources": ["hub.example"], **size},
        ),
        lines.append,
        "pi",
        JOB,
    )
    assert result["changed"] is True
    assert result["download"]["state"] == "done"
    assert lines == [
        "pi: smoke.gguf-1: downloading, 50 % of 100 MiB",
        "pi: smoke.gguf-1: downloaded 100 MiB in 15 s, from hub.example",
    ]


def test_without_a_download_nothing_has_changed() -> None:
    lines: list[str] = []
    result = follow(results({"state": "done", "sources": []}), lines.append, "pi", JOB)
    assert (result["changed"], lines) == (False, [])


@pytest.mark.parametrize("result", [{"failed": True, "msg": "no"}, {"download": {}}])
def test_a_result_without_a_download_is_returned(result: dict[str, Any]) -> None:
    """A module that failed, and one in a check run."""
    assert follow(lambda: result, print, "pi", JOB) == result


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
        follow(results(status), print, "pi", JOB)


def test_what_the_operator_should_know_is_shown() -> None:
    lines: list[str] = []
    notice = "other hosts cannot download from this one: port 6881 cannot be used"
    follow(results({"state": "done", "notice": notice}), lines.append, "pi", JOB)
    assert lines == [f"pi: smoke.gguf-1: {notice}"]


# --- what a host says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("a\x1b[2Jb\r\nc\u202ed\x9be", "a\\x1b[2Jb\\r\\nc\\u202ed\\x9be"),
        ("gr\u00fc\u00dfe", "gr\u00fc\u00dfe"),
        # Spaces of all kinds, and what joins signs; no ends of lines, and nothing without a width.
        ("5\u00a0GB \u202f\u3000\u2009", "5\u00a0GB \u202f\u3000\u2009"),
        ("\U0001f468\u200d\U0001f527", "\U0001f468\u200d\U0001f527"),
        ("\u2028\u2029\u200b\u200c\u200e", "\\u2028\\u2029\\u200b\\u200c\\u200e"),
        ("x" * 11, "x" * 10 + "..."),
        ("\x1b" * 11, "\\x1b\\x1b\\x" + "..."),
        ("", ""),
        (None, ""),
        (7, ""),
        (["x"], ""),
    ],
)
def test_texts_are_made_fit_for_a_terminal(said: object, found: str) -> None:
    assert clean_text(said, 10 if said and len(str(said)) == 11 else 100) == found


FIT = {
    **{"name": "smoke.gguf-1", "size": 100 * MIB, "state": "fetching", "done": 5, "rate": 7},
    **{"seconds_left": 3, "seconds": 1.5, "sources": ["hub.example"], "reason": "", "notice": ""},
}


def test_a_status_that_fits_stays_as_it_is() -> None:
    assert checked_status(FIT, JOB) == FIT
    assert checked_status(FIT | {"pid": 17, "torrent": "x"}, JOB) == FIT


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"name": "\x1b[2J"}, {}),
        ({"size": 10**30}, {}),
        ({"state": 7}, {"state": "unknown"}),
        ({"state": "x\x07"}, {"state": "x\\x07"}),
        ({"done": "5"}, {"done": 0}),
        ({"done": None}, {"done": 0}),
        ({"done": -1}, {"done": 0}),
        ({"done": 100 * MIB + 1}, {"done": 0}),
        ({"done": True}, {"done": 0}),
        ({"done": []}, {"done": 0}),
        ({"done": float("nan")}, {"done": 0}),
        ({"done": float("inf")}, {"done": 0}),
        ({"rate": "fast"}, {"rate": 0}),
        ({"seconds_left": "\x1b[2J"}, {"seconds_left": None}),
        ({"seconds": {}}, {"seconds": 0}),
        ({"sources": "abc"}, {"sources": []}),
        ({"sources": ["a\x1b", 7]}, {"sources": ["a\\x1b", ""]}),
        ({"sources": ["a"] * 10**5}, {"sources": ["a"] * 20}),
        ({"reason": {"x": 1}}, {"reason": ""}),
        ({"reason": "x" * 10**6}, {"reason": "x" * 1000 + "..."}),
        ({"notice": "\n\n"}, {"notice": "\\n\\n"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_status_that_does_not_fit(said: dict[str, Any], found: dict[str, Any]) -> None:
    assert checked_status(FIT | said, JOB) == FIT | found


@pytest.mark.parametrize("found", [None, 7, "done", [], [{"state": "done"}]])
def test_a_status_that_is_no_object(found: object) -> None:
    assert checked_status(found, JOB)["state"] == "unknown"


def test_nothing_of_a_host_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", -1.0)
    lines: list[str] = []
    evil = "\x1b]0;owned\x07\r\n"
    said = {"name": evil, "sources": [evil], "notice": evil, "reason": evil, "rate": evil}
    follow(
        results({"state": "fetching", **said}, {"state": evil, **said}, {"state": "done", **said}),
        lines.append,
        "pi",
        JOB,
    )
    with pytest.raises(DownloadError) as caught:
        follow(results({"state": "failed", **said}), lines.append, "pi", JOB)
    assert len(lines) == 5
    assert [line for line in (*lines, str(caught.value)) if not line.isprintable()] == []


class Clock:
    """Time passes with each call of the module."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls, self._seconds = 0.0, 0, seconds
        monkeypatch.setattr("edge_fleet.progress.time.monotonic", lambda: self.now)

    def call(self, status: dict[str, Any]) -> dict[str, Any]:
        self.now += self._seconds
        self.calls += 1
        return {"download": status}


@pytest.mark.parametrize("state", ["begun", "receiving", "thinking", "", "\x1b"])
def test_a_state_that_does_not_change_ends_at_a_deadline(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(60, monkeypatch)
    with pytest.raises(DownloadError) as caught:
        follow(lambda: clock.call({"state": state, "done": 5}), lambda _: None, "pi", JOB)
    assert clock.now == pytest.approx(STALL_SECONDS + 120, abs=61)
    said = str(caught.value)
    assert said.startswith("the download did not end: its state is '")
    assert said.endswith(
        " at 5 bytes since 31 min. Read its messages on the host (journalctl -u 'edge-llm-fetch*'),"
        " and run site.yml again"
    )
    assert said.isprintable()


def test_states_that_are_unknown_do_not_postpone_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(60, monkeypatch)
    with pytest.raises(DownloadError, match="did not end"):
        follow(lambda: clock.call({"state": f"x{clock.calls}"}), lambda _: None, "pi", JOB)
    assert clock.now < STALL_SECONDS + 200


def test_a_download_has_an_end_whatever_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000, monkeypatch)
    with pytest.raises(DownloadError, match="did not end"):
        follow(
            lambda: clock.call({"state": "fetching", "done": clock.calls}),
            lambda _: None,
            "pi",
            JOB,
        )
    assert LIMIT_SECONDS < clock.now <= LIMIT_SECONDS + 1000


@pytest.mark.parametrize(
    "first",
    [
        # All came from another host, was wrong, and comes from the source once more, slowly.
        pytest.param("receiving", id="in another state"),
        # A file from the source was wrong, or the source knows no ranges.
        pytest.param("fetching", id="after a restart"),
    ],
)
def test_bytes_are_counted_anew(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    clock = Clock(STALL_SECONDS - 1, monkeypatch)
    statuses: list[dict[str, Any]] = [
        {"state": first, "done": 100 * MIB},
        *({"state": "fetching", "done": done * MIB} for done in range(5)),
        {"state": "done"},
    ]
    result = follow(lambda: clock.call(statuses.pop(0)), lambda _: None, "pi", JOB)
    assert result["download"]["state"] == "done"


def test_restarts_do_not_postpone_the_deadline_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(60, monkeypatch)
    with pytest.raises(DownloadError, match="did not end"):
        follow(
            lambda: clock.call({"state": "fetching", "done": clock.calls % 2}),
            lambda _: None,
            "pi",
            JOB,
        )
    assert clock.now < 2 * STALL_SECONDS
