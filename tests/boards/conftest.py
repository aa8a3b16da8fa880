"""The simulated boards, and the command that restarts them."""

from __future__ import annotations

from tests.host.conftest import client, key, plan, question, variables

__all__ = ["client", "key", "plan", "question", "variables"]
