"""The simulated boards, and the command that restarts them."""

from __future__ import annotations

from tests.host.conftest import client, containers, key, plan, question, variables

__all__ = ["client", "containers", "key", "plan", "question", "variables"]
