"""For all tests: what they start can be interrupted, and what becomes of each is reported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import report


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """The programs that a test starts can be stopped by SIGINT.

    A shell starts what runs in its background with that signal ignored, and what is ignored
    stays so for every program that is started from there.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
