"""Results of tests, collected from the pytest processes that a run starts.

Each process appends a line of JSON for every test that failed or was run again to the file that
the environment variable TESTS_REPORT names, also where a playbook starts pytest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "TESTS_REPORT"
_LINES, _COLUMNS = 30, 300
"""Of what a failed test prints: the reason is at the end. Its log has the rest."""


@dataclass(frozen=True)
class Result:
    """A test that failed, or failed once and was run again."""

    test: str
    outcome: str
    """`failed`, or `rerun` where the test was run again."""
    text: str


def append(path: Path, test: str, outcome: str, text: str) -> None:
    """Add a result to a report; several processes may do so at once."""
    said = "\n".join(line[:_COLUMNS] for line in text.splitlines()[-_LINES:])
    with path.open("a", encoding="utf-8") as file:
        # One write of one line: lines of several processes do not mix.
        file.write(json.dumps(asdict(Result(test, outcome, said))) + "\n")


def read(path: Path) -> tuple[list[Result], list[Result]]:
    """The tests that failed, and those that passed when they were run again; each once."""
    if not path.exists():
        return [], []
    lines = path.read_text(encoding="utf-8").splitlines()
    results = [Result(**json.loads(line)) for line in lines]
    failed = {each.test: each for each in results if each.outcome == "failed"}
    again = {each.test: each for each in results if each.outcome == "rerun"}
    return list(failed.values()), [each for test, each in again.items() if test not in failed]
