"""A request's place: first in the queue, then at the engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from llm_provider.errors import (
    ContextFullError,
    EngineLoadingError,
    EngineUnreachableError,
    StreamInterruptedError,
)
from llm_provider.providers.base import LLMProvider
from llm_provider.server.token_estimate import NOTHING, TokenEstimate

if TYPE_CHECKING:
    from llm_provider.server.admission import AdmissionQueue

Result = TypeVar("Result")


class QueueFull(Exception):
    """As many requests wait as may; or this one had to go for a request of another key."""


class Stopping(Exception):
    """The chat API stops: what has not begun will not."""


class Ticket:
    """A request's place: first in the queue, then at the engine."""

    def __init__(
        self,
        queue: AdmissionQueue,
        number: int,
        arrived: float,
        hold_seconds: float,
        key: str,
        share: float,
    ) -> None:
        self._queue = queue
        self.number = number
        self.arrived = arrived
        self.key = key
        self.share = share
        self.estimate = NOTHING
        self.alone = False
        self.leaving = False
        self.provider = queue.engine.provider
        self.taken = 0.0
        self.slots = 0
        self.hold_left = hold_seconds
        self.held_until = math.inf
        self.future: asyncio.Future[None] | None = None
        self.running = False
        self.refused: Exception | None = None
        self._arrival: asyncio.Timeout | None = None

    @asynccontextmanager
    async def arriving(self) -> AsyncGenerator[None, None]:
        """Read the request's body within this: the queue may refuse the request meanwhile.

        Raises what the queue refuses it with: QueueFull, Stopping.
        """
        try:
            async with asyncio.timeout(None) as self._arrival:
                yield
        except TimeoutError:
            if self.refused is None:
                raise
            raise self.refused from None
        finally:
            self._arrival = None

    def refuse(self, error: Exception) -> None:
        """Have the request end with an error, whatever it does now; it does not run."""
        self.refused = error
        if self._arrival is not None:
            self._arrival.reschedule(asyncio.get_running_loop().time())
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)

    async def enter(self, estimate: TokenEstimate = NOTHING) -> None:
        """Wait for the turn; from then on the ticket is the request's place at the engine.

        Raises what `AdmissionQueue.enter` raises.
        """
        self.estimate = estimate
        await self._queue.enter(self)

    def leave(self) -> None:
        """Give the place at the engine up, before the request's end: it has all of its answer."""
        self._queue.leave(self)

    def report_broken(self) -> None:
        """Have others held until the engine has been asked: it may have died, not this alone."""
        # Not the error's own words, which may quote the request.
        self._queue.engine.lost(self.provider, f"{self.provider.name} broke off an answer.")

    async def ask_beside(self, question: Callable[[LLMProvider], Awaitable[Result]]) -> Result:
        """Return `question`'s answer without waiting for others, where the engine may be asked now.

        For what an engine does beside its requests, and may do twice: it is put again, as any
        other, where the engine is gone or changed meanwhile. Raises what `enter` and `ask` raise.
        """
        if self._queue.open:
            with suppress(EngineUnreachableError, EngineLoadingError, StreamInterruptedError):
                return await question(self._queue.engine.provider)
        await self.enter()
        return await self.ask(question)

    async def ask(self, question: Callable[[LLMProvider], Awaitable[Result]]) -> Result:
        """Return `question`'s answer, put to the engine whose turn it is.

        Put again only after an error that says that the engine has not begun, or has given up for
        lack of room beside others: then alone. Raises EngineLoadingError when it was held for too
        long, Stopping, and whatever else `question` raises.
        """
        while True:
            provider = self.provider
            try:
                return await question(provider)
            except StreamInterruptedError:
                self.report_broken()
                raise
            except (EngineUnreachableError, EngineLoadingError) as error:
                self._queue.engine.lost(provider, str(error))
                await self._queue.retry(self)
            except ContextFullError:
                if self.alone:
                    raise
                self.alone = True
                await self._queue.requeue(self)
