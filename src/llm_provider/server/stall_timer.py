"""A limit to how long a client may take nothing of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

STALL_SECONDS = 60.0
"""How long a client may take nothing of a stream before it counts as gone: it blocks a slot."""


class StallTimer:
    """A limit to how long a client may let one send wait: one timer for all of them.

    A timer for each would cost more than the sending.
    """

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._arm(STALL_SECONDS)

    def begin(self) -> None:
        self._since = self._loop.time()

    def end(self) -> None:
        self._since = None

    def close(self) -> None:
        self._timer.cancel()

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        waited = 0.0 if self._since is None else now - self._since
        if waited >= STALL_SECONDS:
            self._limit.reschedule(now)
        else:
            self._arm(STALL_SECONDS - waited)


@asynccontextmanager
async def stall_timer() -> AsyncGenerator[StallTimer, None]:
    """Raises TimeoutError once a send has waited for STALL_SECONDS."""
    async with asyncio.timeout(None) as limit:
        timer = StallTimer(limit)
        try:
            yield timer
        finally:
            timer.close()
