"""Writes what becomes of each test to the report of the whole run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record a test as it ends."""
    if report.when == "call" or report.outcome != "passed":
        _record(report.nodeid, str(report.outcome), report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file that cannot be imported: its tests do not run."""
    if report.outcome != "passed":
        _record(report.nodeid, str(report.outcome), report)


def _record(test: str, outcome: str, found: pytest.TestReport | pytest.CollectReport) -> None:
    # Workers of pytest-xdist report to the process that started them, which records.
    path = os.environ.get(report.VARIABLE)
    if path and outcome != "skipped" and "PYTEST_XDIST_WORKER" not in os.environ:
        report.append(Path(path), test, outcome, found.longreprtext)
