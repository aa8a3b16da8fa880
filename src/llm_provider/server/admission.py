"""Admission of requests to the engine: in which order, how many at once, and who waits how long.

A request first gets a place in the queue, before its body is read: there are QUEUE of them, and a
key that has most of them gives one up for a key that has few. Once the body is there, it waits for
its turn. The keys have their turns one after the other, by their shares, and requests of one key
pass in the order in which they came. While the engine loads, is lost or is being changed (see
`engine_state`), all are held; once it is ready they go on, to whichever engine that is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llm_provider.errors import EngineLoadingError
from llm_provider.providers.base import LLMProvider
from llm_provider.server.engine_state import EngineState
from llm_provider.server.fair_queue import FairQueue
from llm_provider.server.seats import Seats
from llm_provider.server.ticket import QueueFull, Stopping, Ticket

QUEUE = 64
"""Requests that may wait beside those that run."""

_log = logging.getLogger("llm_provider.engine")


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
        self._seats: Seats[Ticket] = Seats()  # all that have not begun
        self._waiting: FairQueue[Ticket] = FairQueue()  # those of them that may begin
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
    def arriving(self) -> int:
        """Requests that have a place, and whose bodies have not arrived."""
        return len(self._seats) - len(self._waiting)

    @property
    def empty(self) -> bool:
        """Whether no request runs or waits."""
        return not self._tickets and not len(self._seats)

    # Requests.

    @asynccontextmanager
    async def place(
        self, arrived: float, key: str = "", share: float = 1.0
    ) -> AsyncGenerator[Ticket, None]:
        """Have a place in the queue, and then at the engine, until left; see `Ticket`.

        `arrived` is when the request came (time.monotonic); `share` is the weight of its key.
        Raises QueueFull where there is no place, Stopping.
        """
        if self.stopping:
            raise Stopping
        self._make_room(key, share)
        ticket = Ticket(self, next(self._numbers), arrived, self._hold_seconds, key, share)
        self._seats.add(ticket)
        try:
            yield ticket
        finally:
            self._seats.discard(ticket)
            self.leave(ticket)

    async def enter(self, ticket: Ticket) -> None:
        """Wait for the turn of a request that has a place.

        Where conversations share one context, those run together whose estimates it has room for.
        Raises EngineLoadingError when held for too long, QueueFull when it had to go for a request
        of another key, Stopping.
        """
        await self._wait(ticket, again=False)

    async def retry(self, ticket: Ticket) -> None:
        """Put a request that has not begun back to where it stood: before all that came later."""
        if self.open and not ticket.leaving:  # the engine is back: the place is still its own
            return
        await self.requeue(ticket)

    async def requeue(self, ticket: Ticket) -> None:
        """Let others pass, and wait anew."""
        self.leave(ticket)
        self._seats.add(ticket)
        await self._wait(ticket, again=True)

    def stop(self) -> None:
        """Send away all that wait, and let none in; what runs goes on."""
        self.stopping = True
        self.engine.stop()
        for ticket in self._seats:
            self._send_away(ticket, Stopping())

    def _make_room(self, key: str, share: float) -> None:
        """See to it that there is a place for a request of a key. Raises QueueFull."""
        if self.running + len(self._seats) < self.engine.parallel + QUEUE:
            return
        displaced = self._seats.find_displaced(key, share)
        if displaced is None:
            raise QueueFull
        self._send_away(displaced, QueueFull())

    async def _wait(self, ticket: Ticket, *, again: bool) -> None:
        if self.stopping:
            raise Stopping
        if ticket.refused is not None:
            raise ticket.refused
        if self.open and not len(self._waiting) and self._fits(ticket):
            self._enter(ticket)
            return
        ticket.future = asyncio.get_running_loop().create_future()
        add = self._waiting.put_back if again else self._waiting.push
        add(ticket, ticket.key, ticket.share)
        if not self.open:
            self._hold(ticket)
            self._arm()
        self._pump()
        try:
            await ticket.future
        except BaseException:
            if ticket.running:  # let in, and cancelled before it knew
                self.leave(ticket)
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
        self._seats.discard(ticket)
        ticket.running = True
        ticket.leaving = False
        ticket.provider = self.engine.provider
        self._tickets.add(ticket)
        ticket.taken = self._cost(ticket)
        self._taken += ticket.taken
        ticket.slots = self._width(ticket)
        self._slots += ticket.slots
        self.running += 1

    def leave(self, ticket: Ticket) -> None:
        """Give a place at the engine up; where there is none, this does nothing."""
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
        while self.open and (ticket := self._waiting.peek()) is not None:
            if ticket.future is None or ticket.future.done():  # cancelled, but it has not run since
                self._waiting.remove(ticket)
                continue
            if not self._fits(ticket):
                break
            self._waiting.pop()
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
        if len(self._waiting) and not self.open:
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
        """Take a request's place away, wherever it is before it runs."""
        self._seats.discard(ticket)
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        ticket.refuse(error)

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
