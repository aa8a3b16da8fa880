"""Admission of requests to the engine: in which order, how many at once, and who waits how long.

Requests pass in the order in which they came. While the engine loads, is lost or is being changed
(see `engine_state`), they are held; once it is ready they go on, to whichever engine that is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from bisect import insort
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from llm_provider.errors import (
    ContextFullError,
    EngineLoadingError,
    EngineUnreachableError,
    StreamInterruptedError,
)
from llm_provider.providers.base import LLMProvider
from llm_provider.server.engine_state import EngineState
from llm_provider.server.token_estimate import NOTHING, TokenEstimate

Result = TypeVar("Result")

QUEUE = 64
"""Requests that may wait beside those that run."""

_log = logging.getLogger("llm_provider.engine")


class QueueFull(Exception):
    """As many requests wait as may."""


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
        estimate: TokenEstimate = NOTHING,
    ) -> None:
        self._queue = queue
        self.number = number
        self.arrived = arrived
        self.estimate = estimate
        self.alone = False
        self.leaving = False
        self.provider = queue.engine.provider
        self.taken = 0.0
        self.slots = 0
        self.hold_left = hold_seconds
        self.held_until = math.inf
        self.future: asyncio.Future[None] | None = None
        self.running = False

    def report_broken(self) -> None:
        """Have others held until the engine has been asked: it may have died, not this alone."""
        # Not the error's own words, which may quote the request.
        self._queue.engine.lost(self.provider, f"{self.provider.name} broke off an answer.")

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


class AdmissionQueue:
    """The one way to the engine. As many requests run at once as it has slots; others wait.

    `hold_seconds`: how long a request is held while the engine is not there. Waiting in the queue
    while the engine works does not count.
    """

    def __init__(self, engine: EngineState, hold_seconds: float) -> None:
        self.engine = engine
        self.running = 0
        self.leaving = 0
        """Requests that run at an engine of before."""
        self.stopping = False
        self._tickets: set[Ticket] = set()
        self._former: list[LLMProvider] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._taken = 0.0
        self._slots = 0  # that those which run have taken
        self._hold_seconds = hold_seconds
        self._waiting: deque[Ticket] = deque()  # by their numbers
        self._numbers = itertools.count()
        self._shut_at = time.monotonic()
        self._was_open = self.open
        self._was_on_hold = engine.on_hold
        self._expiry: asyncio.TimerHandle | None = None
        engine.observe(self)

    # State.

    @property
    def open(self) -> bool:
        """Whether requests pass now."""
        return self.engine.open and not self.stopping

    @property
    def queued(self) -> int:
        """Requests that wait for others to end."""
        return len(self._waiting) if self.open else 0

    @property
    def held(self) -> int:
        """Requests that wait for the engine."""
        return 0 if self.open else len(self._waiting)

    @property
    def empty(self) -> bool:
        """Whether no request runs or waits."""
        return not self._tickets and not self._waiting

    # Requests.

    @asynccontextmanager
    async def admit(
        self, arrived: float, estimate: TokenEstimate = NOTHING
    ) -> AsyncGenerator[Ticket, None]:
        """Wait in the queue; what is entered is at the engine, and is its place until left.

        `arrived` is when the request came (time.monotonic). Where conversations share one context,
        those run together whose estimates it has room for. Raises QueueFull at once where the queue
        has no place, EngineLoadingError when held for too long, Stopping.
        """
        if self.running + len(self._waiting) >= self.engine.parallel + QUEUE:
            raise QueueFull
        ticket = Ticket(self, next(self._numbers), arrived, self._hold_seconds, estimate)
        await self._wait(ticket)
        try:
            yield ticket
        finally:
            self._leave(ticket)

    async def retry(self, ticket: Ticket) -> None:
        """Put a request that has not begun back to where it stood: before all that came later."""
        if self.open and not ticket.leaving:  # the engine is back: the place is still its own
            return
        await self.requeue(ticket)

    async def requeue(self, ticket: Ticket) -> None:
        """Let others pass, and wait anew."""
        self._leave(ticket)
        await self._wait(ticket)

    def stop(self) -> None:
        """Send away all that wait, and let none in; what runs goes on."""
        self.stopping = True
        self.engine.stop()
        for ticket in list(self._waiting):
            self._send_away(ticket, Stopping())

    async def _wait(self, ticket: Ticket) -> None:
        if self.stopping:
            raise Stopping
        if self.open and not self._waiting and self._fits(ticket):
            self._enter(ticket)
            return
        ticket.future = asyncio.get_running_loop().create_future()
        insort(self._waiting, ticket, key=lambda each: each.number)
        if not self.open:
            self._hold(ticket)
            self._arm()
        self._pump()
        try:
            await ticket.future
        except BaseException:
            if ticket.running:  # let in, and cancelled before it knew
                self._leave(ticket)
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
                self._pump()  # those behind it may have room where it had none
            raise

    def _fits(self, ticket: Ticket) -> bool:
        if self.running == 0:
            return True
        if self._slots + self._width(ticket) > self.engine.parallel:
            return False
        return self._taken + self._cost(ticket) <= self._room

    def _width(self, ticket: Ticket) -> int:
        """Slots that a request takes: one for each of its answers, as many as there are."""
        return min(ticket.estimate.answers, self.engine.parallel)

    @property
    def _room(self) -> float:
        """Tokens that all conversations share; without end where each has a context of its own."""
        engine = self.engine
        size = engine.capacity.context_size if engine.provider.shares_context else None
        return size or math.inf

    def _cost(self, ticket: Ticket) -> float:
        room = self._room
        if room == math.inf:
            return 0
        return math.inf if ticket.alone else ticket.estimate.tokens(room / self.engine.parallel)

    def _enter(self, ticket: Ticket) -> None:
        ticket.running = True
        ticket.leaving = False
        ticket.provider = self.engine.provider
        self._tickets.add(ticket)
        ticket.taken = self._cost(ticket)
        self._taken += ticket.taken
        ticket.slots = self._width(ticket)
        self._slots += ticket.slots
        self.running += 1

    def _leave(self, ticket: Ticket) -> None:
        if not ticket.running:
            return
        ticket.running = False
        self._tickets.discard(ticket)
        if ticket.leaving:
            self.leaving -= 1
            if not self.leaving:
                self._close_former()
            return
        self.running -= 1
        self._taken -= ticket.taken
        self._slots -= ticket.slots
        if self.running == 0:
            self._taken = 0.0  # infinity less itself is no number
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self.open and self._fits(self._waiting[0]):
            ticket = self._waiting.popleft()
            if ticket.future is not None and not ticket.future.done():
                self._enter(ticket)
                ticket.future.set_result(None)

    # Holding.

    def _hold(self, ticket: Ticket) -> None:
        engine = self.engine
        seconds = 0.0 if engine.abandoned else max(ticket.hold_left, engine.hold_seconds)
        ticket.held_until = max(ticket.arrived, self._shut_at) + seconds

    def _arm(self) -> None:
        """Have those sent away whose time is over, when the first of them is."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._waiting and not self.open:
            first = min(ticket.held_until for ticket in self._waiting)
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, first - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        reason = f"The engine is not ready: {self.engine.waiting_for}"
        for ticket in [ticket for ticket in self._waiting if ticket.held_until <= now]:
            self._send_away(ticket, EngineLoadingError(reason))
        self._arm()

    def _send_away(self, ticket: Ticket, error: Exception) -> None:
        self._waiting.remove(ticket)
        if ticket.future is not None and not ticket.future.done():
            ticket.future.set_exception(error)

    # `engine_state.Observer`.

    def engine_changed(self) -> None:
        """Begin or end the holding of all that wait, and let in who may pass."""
        if self._was_on_hold and not self.engine.on_hold:
            _log.info("requests pass again", extra={"held": len(self._waiting)})
        self._was_on_hold = self.engine.on_hold
        now = time.monotonic()
        was_open, self._was_open = self._was_open, self.open
        if not self.open:
            if was_open:
                self._shut_at = now
            for ticket in self._waiting:
                self._hold(ticket)
        elif not was_open:
            for ticket in self._waiting:
                # No more than its own: the time that a change allowed ended with the change.
                ticket.hold_left = min(ticket.hold_left, ticket.held_until - now)
        self._arm()
        self._pump()

    def engine_switched(self, former: LLMProvider) -> None:
        """Leave those that run at the engine where they began; no request is lost.

        They end there, as long as that is there; the others go to the new one, in order, once it
        is ready.
        """
        for ticket in self._tickets:
            ticket.leaving = True
        self.leaving += self.running
        self.running, self._taken, self._slots = 0, 0.0, 0
        self._former.append(former)
        if not self.leaving:
            self._close_former()

    def _close_former(self) -> None:
        """Close the engines that nobody asks any more."""
        former, self._former = self._former, []
        for provider in former:
            task = asyncio.create_task(provider.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
