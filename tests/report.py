"""Results of tests, collected from the pytest processes that a run starts.

Each process appends a line of JSON for every test to the file that the environment variable
TESTS_REPORT names, also where a playbook starts pytest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

VARIABLE = "TESTS_REPORT"
_LINES, _COLUMNS = 30, 300
"""Of what a failed test prints: the reason is at the end. Its log has the rest."""


@dataclass(frozen=True)
class Result:
    """What became of a test."""

    test: str
    outcome: str
    """`passed`, `failed`, or `rerun` where the test failed and was run again."""
    text: str
    first: str = ""
    """What a test that failed twice printed the first time, where that differs: the second failure
    is often only a consequence of the first."""


@dataclass(frozen=True)
class Summary:
    """The results of a run, each test once."""

    passed: int
    failed: list[Result]
    again: list[Result]
    """Tests that passed only when they were run again."""


def append(path: Path, test: str, outcome: str, text: str) -> None:
    """Add a result to a report; several processes may do so at once."""
    said = "\n".join(line[:_COLUMNS] for line in text.splitlines()[-_LINES:])
    with path.open("a", encoding="utf-8") as file:
        # One write of one line: lines of several processes do not mix.
        file.write(json.dumps(asdict(Result(test, outcome, said))) + "\n")


def read(path: Path) -> Summary:
    """Read the report of a run."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[str, Result]] = {"passed": {}, "failed": {}, "rerun": {}}
    for line in lines:
        result = Result(**json.loads(line))
        found[result.outcome][result.test] = result
    failed, first = found["failed"], found["rerun"]
    for test in failed.keys() & first.keys():
        if first[test].text != failed[test].text:
            failed[test] = replace(failed[test], first=first[test].text)
    return Summary(
        len(found["passed"].keys() - failed.keys()),
        list(failed.values()),
        [each for test, each in found["rerun"].items() if test not in failed],
    )
