"""The simulated boards, and the command that restarts them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.playing import alone_on
from tests.system.hosts.conftest import client, containers, key, plan, question, variables

__all__ = ["client", "containers", "key", "plan", "question", "variables"]


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test has its board for itself."""
    with alone_on("jetson-01" if "jetson-01" in request.node.nodeid else "pi-01"):
        yield
