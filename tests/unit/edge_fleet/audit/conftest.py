"""Fixtures for the checks of an audit."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edge_fleet.audit import audit
from tests.unit.edge_fleet.audit.hosts import GOOD, NOW, Criticised, Outcome


@pytest.fixture
def facts() -> dict[str, Any]:
    return copy.deepcopy(GOOD)


@pytest.fixture
def criticised() -> Criticised:
    """What is failed or noted: status, check, found, advice."""

    def run(facts: dict[str, Any]) -> Outcome:
        return [
            (each["status"], each["check"], each["found"], each["advice"])
            for each in audit(facts, NOW)
            if each["status"] != "passed"
        ]

    return run
