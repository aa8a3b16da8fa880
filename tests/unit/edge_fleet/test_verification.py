"""What a report of test suites comes to."""

from __future__ import annotations

from typing import Any

from edge_fleet.verification import failed_suites


def suite(name: str, *problems: list[str]) -> dict[str, Any]:
    """A suite of a report: a conversation for each list of problems."""
    conversations = [
        {"name": f"c{number}", "ok": not each, "problems": each}
        for number, each in enumerate(problems, 1)
    ]
    return {"name": name, "conversations": conversations}


def test_a_host_that_passes() -> None:
    assert failed_suites({"suites": [suite("chat", [], [])]}) == ""


def test_a_host_that_fails() -> None:
    report = {
        "suites": [suite("chat", [], ["a", "b"], ["c"]), suite("tools", ["d"]), suite("x", [])]
    }
    assert failed_suites(report) == (
        "conversations failed: 2 of 3 of chat, 1 of 1 of tools\n"
        "chat, c2: a\nchat, c2: b\nchat, c3: c\ntools, c1: d"
    )


def test_a_message_has_the_first_problems() -> None:
    report = {"suites": [suite("chat", *([str(number)] for number in range(7)))]}
    lines = failed_suites(report).splitlines()
    assert len(lines) == 7
    assert lines[-2:] == ["chat, c5: 4", "and 2 more"]
