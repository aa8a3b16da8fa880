"""What failed, told once more where a run of many parts ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

LINES = 30
"""Of what a test says at its end: the reason is among them."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write what failed to the file that TESTS_FAILED names."""
    # Of tests that run side by side it is told where they come together.
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    name = os.environ.get("TESTS_FAILED")
    failed = [
        report for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])
    ]
    if name and failed:
        with Path(name).open("a") as file:
            for report in failed:
                said = report.longreprtext.splitlines()[-LINES:]
                file.write("\n".join([f"== {report.nodeid}", *said, ""]))
