"""The moments of a change at which the power is cut, and what a start must then have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = ("start", "prove", "hand over", "check")
"""Steps before which something was done to containers alone, and nothing was written."""


@dataclass(frozen=True)
class Cut:
    """A moment, what the board had to keep by then, and its disk as a cut leaves it."""

    kind: str
    name: str
    kept: dict[str, Any]
    disk: Path

    @property
    def staging(self) -> bool:
        """Whether it is of a release's folder that no start looks into yet, by its name."""
        return "releases/." in self.name

    def __str__(self) -> str:
        return f"after `{self.name}`" if self.kind == "write" else f"before the step `{self.name}`"


def select_cuts(cuts: Sequence[Cut]) -> list[Cut]:
    """Those that a start can tell apart: each costs one.

    Of the writes into a folder that no start looks into the last one stands for all.
    """
    staged = [cut for cut in cuts if cut.kind == "write" and cut.staging]
    return [
        cut
        for cut in cuts
        if (cut.kind == "write" and not cut.staging)
        or cut in staged[-1:]
        or (cut.kind == "step" and cut.name in STEPS)
    ]


def find_problems(cut: Cut, found: dict[str, Any], answer: str, known: str) -> list[str]:
    """What is wrong after a cut and a start, a sentence each; `found` is what onboard.py saw."""
    problems = []
    if answer != known:
        problems.append(f"it answered {answer!r}")
    if found["service"] != "active":
        problems.append(f"edge-llm.service is {found['service']}: {found['log']}")
    if found["current"] != cut.kept["current"]:
        problems.append(f"it runs release {found['current']}; {cut.kept['current']} was current")
    if found["previous"] == found["current"]:
        problems.append("it has no release to go back to: the one before is the current one")
    if lost := set(cut.kept["releases"]) - set(found["releases"]):
        problems.append(f"these releases are gone: {', '.join(sorted(lost))}")
    problems += [
        f"release {name} is not whole: {', '.join(files)}"
        for name, files in found["damaged"].items()
        if files
    ]
    if found["live"] != found["asked"]:
        problems.append(f"the chat API follows {found['live']!r}")
    if found["journal"]:
        problems.append("the journal is left")
    undone = found["last"]["action"] == "recover"
    if undone != cut.kept["journal"] or found["history"] != cut.kept["history"] + undone:
        begun = "had begun" if cut.kept["journal"] else "did not run"
        problems.append(
            f"its history has {found['history']} lines and ends with {found['last']}; there were"
            f" {cut.kept['history']}, and a change {begun}"
        )
    if found["running"] != found["wanted"]:
        problems.append(f"{', '.join(found['running'])} run; {', '.join(found['wanted'])} should")
    if found["containers"] != found["running"]:
        problems.append(f"these containers are there: {', '.join(found['containers'])}")
    return problems
