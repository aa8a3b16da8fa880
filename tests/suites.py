"""The test suites: what each runs, the boards it needs, and the minutes it may take.

A suite consists of parts. Parts of the same board run one after the other, others side by side.
The budgets are for two cores; a suite beyond its budget is reported, and does not fail.
"""

from __future__ import annotations

from dataclasses import dataclass

PAIR = ("jetson-01", "pi-01")
"""Boards that the whole of site.yml has provisioned."""
FIELD = ("field-01", "field-02", "field-03")
BARE = ("bare-01", "bare-02", "bare-03", "bare-04", "bare-05")
KNOWN_ISSUES = ("issue-01", "issue-02", "issue-03")


@dataclass(frozen=True)
class Part:
    """Test files that run in one process, and the boards that they have to themselves."""

    name: str
    paths: tuple[str, ...]
    boards: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A subject's integration tests: `make test-NAME` runs them alone."""

    name: str
    minutes: int
    parts: tuple[Part, ...]
    environment: str = ".venv"
    """The virtual environment that its tests run in."""
    on_request: bool = False
    """Whether `make test-all` leaves it out."""

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards of all parts, each once."""
        return tuple(dict.fromkeys(board for part in self.parts for board in part.boards))


def _paths(folder: str, *files: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/{folder}/test_{file}.py" for file in files)


# The longest parts come first: they start first.
SUITES = (
    Suite(
        "rollback",
        10,
        (
            Part("interruptions", _paths("rollback", "cuts"), ("jetson-01",)),
            Part("rollback", _paths("rollback", "rollback"), ("pi-01",)),
        ),
    ),
    Suite(
        "weights",
        9,
        (
            Part("weights", _paths("weights", "fleet", "lock"), FIELD),
            Part("sources", _paths("weights", "faults", "store"), ("pi-01",)),
            Part("images-cache", _paths("weights", "images"), PAIR),
        ),
    ),
    Suite("engines", 10, (Part("engines", ("tests/integration/engines",)),)),
    Suite(
        "swap",
        14,
        (
            Part("swap-beside", _paths("swap", "beside"), ("pi-01",)),
            Part("swap-access", _paths("swap", "access"), ("pi-01",)),
            Part("swap-one-by-one", _paths("swap", "one_by_one"), ("jetson-01",)),
            Part("swap-tls", _paths("swap", "tls"), ("jetson-01",)),
            Part("swap-earlier", _paths("swap", "earlier"), ("jetson-01",)),
            Part("swap-tasks", _paths("swap", "tasks"), ("pi-01",)),
            Part("swap-fleet", _paths("swap", "fleet"), PAIR),
        ),
    ),
    Suite(
        "clients",
        15,
        (Part("clients", ("tests/integration/clients",)),),
        environment=".venv-clients",
        on_request=True,
    ),
    Suite("attacks", 6, (Part("attacks", ("tests/integration/attacks",)),)),
    Suite("network", 2, (Part("network", ("tests/integration/network",)),)),
    Suite("uninstall", 5, (Part("uninstall", _paths("uninstall", "uninstall"), PAIR),)),
    Suite("refusals", 3, (Part("refusals", _paths("refusals", "refusals"), (*BARE, "pi-01")),)),
    Suite(
        "known-issues",
        7,
        (
            Part(
                "known-issues",
                _paths("known_issues", "known_issues", "memory_cgroup"),
                (*KNOWN_ISSUES, "bare-01", "jetson-01"),
            ),
        ),
    ),
)

MINUTES = {"lint": 3, "unit": 7, "images": 5, "scenario": 10}
"""Budgets of what is no suite of its own."""


def suite_of(test: str) -> Suite | None:
    """The suite that a test or a test file belongs to; None where it belongs to none."""
    path = test.partition("::")[0].rstrip("/")
    for suite in SUITES:
        for part in suite.parts:
            if any(path == each or path.startswith(f"{each}/") for each in part.paths):
                return suite
    return None
