"""An admission queue over an engine in whatever state a test wants it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llm_provider.errors import LLMError
from llm_provider.providers.base import Capacity, LLMProvider
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.engine_state import EngineState
from llm_provider.server.ticket import Ticket
from llm_provider.server.token_estimate import NOTHING, TokenEstimate


class Stub(LLMProvider):
    """An engine in whatever state a test wants it."""

    name = "stub"

    def __init__(self, model: str = "m") -> None:
        super().__init__(model=model)
        self.problem: Exception | None = None
        self.load_problem: LLMError | None = None
        self.capacity_problem: LLMError | None = None
        self.slots: int | None = None
        self.loads = 0
        self.closed = False

    async def health(self) -> None:
        raise AssertionError

    async def ready(self) -> None:
        if self.problem is not None:
            raise self.problem

    async def load(self) -> None:
        self.loads += 1
        if self.load_problem is not None:
            raise self.load_problem

    async def capacity(self) -> Capacity:
        if self.capacity_problem is not None:
            raise self.capacity_problem
        return Capacity(4096, self.slots)

    async def close(self) -> None:
        self.closed = True
        await super().close()


@asynccontextmanager
async def admitted(
    queue: AdmissionQueue, estimate: TokenEstimate = NOTHING, key: str = "", share: float = 1.0
) -> AsyncIterator[Ticket]:
    """A request that comes now, and whose body is there at once."""
    async with queue.place(time.monotonic(), key, share) as ticket:
        await ticket.enter(estimate)
        yield ticket


class Line:
    """Requests with names, that enter and leave a queue as told."""

    def __init__(self, queue: AdmissionQueue) -> None:
        self.queue = queue
        self.entered: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.tickets: dict[str, Ticket] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(
        self,
        *names: str,
        seconds_ago: float = 0.0,
        estimate: TokenEstimate = NOTHING,
        key: str = "",
        share: float = 1.0,
    ) -> None:
        """Have requests of a key come, each before the next."""
        for name in names:
            self._leave[name] = asyncio.Event()
            arrived = time.monotonic() - seconds_ago
            request = self._request(name, arrived, estimate, key, share)
            self.tasks[name] = asyncio.create_task(request)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _request(
        self, name: str, arrived: float, estimate: TokenEstimate, key: str, share: float
    ) -> None:
        async with self.queue.place(arrived, key, share) as ticket:
            await ticket.enter(estimate)
            self.tickets[name] = ticket
            self.entered.append(name)
            await self._leave[name].wait()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
            await asyncio.wait_for(self.tasks[name], 5)

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]

    def numbers(self) -> tuple[int, int, int]:
        return self.queue.running, self.queue.queued, self.queue.held


@asynccontextmanager
async def lined(stub: Stub, parallel: int = 2, hold: float = 5.0) -> AsyncIterator[Line]:
    """A queue that is open; whatever still waits at the end is cancelled."""
    queue = AdmissionQueue(EngineState(stub, parallel), hold)
    assert await queue.engine.probe()
    line = Line(queue)
    try:
        yield line
    finally:
        for task in line.tasks.values():
            task.cancel()
        await asyncio.gather(*line.tasks.values(), return_exceptions=True)
        assert (queue.running, queue.queued, queue.held) == (0, 0, 0)
        assert queue.empty and not queue.leaving


def lose(queue: AdmissionQueue, reason: str = "gone") -> None:
    queue.engine.lost(queue.engine.provider, reason)


async def gone(line: Line, *names: str) -> list[BaseException | None]:
    """The errors with which these requests ended."""
    await asyncio.wait([line.tasks[name] for name in names], timeout=5)
    return [line.tasks[name].exception() for name in names]


@asynccontextmanager
async def watched(queue: AdmissionQueue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.engine.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# A context that conversations share.


class Sharing(Stub):
    """Its conversations share 4096 tokens."""

    shares_context = True
