"""The simulated boards, and the command that restarts them."""

from __future__ import annotations

import pytest

from tests.host.conftest import client, containers, key, plan, question, variables

__all__ = ["client", "containers", "key", "plan", "question", "variables"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, but for those of the same board."""
    for item in items:
        board = "jetson-01" if "jetson-01" in item.nodeid else "pi-01"
        item.add_marker(pytest.mark.xdist_group(board))
