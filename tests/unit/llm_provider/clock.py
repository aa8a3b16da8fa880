"""The event loop's clock, put forward by tests: what takes its time happens without a wait."""

from __future__ import annotations

import asyncio

import pytest


class Clock:
    """The clock of the running event loop, which goes on and can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + self._ahead)

    def put_forward(self, seconds: float) -> None:
        """Have so many seconds gone by: whatever was to happen within them is due."""
        self._ahead += seconds
