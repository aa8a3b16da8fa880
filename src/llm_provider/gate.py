"""What stands between requests and the engine: whether it may be asked now, and by how many.

Requests pass in the order in which they came. While the engine loads, is lost or is being changed,
they are held; once it is ready they go on, to whichever engine that is.
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
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from llm_provider.base import Capacity, LLMProvider
from llm_provider.errors import (
    ContextFullError,
    EngineLoadingError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)

Result = TypeVar("Result")

QUEUE = 64
"""Requests that may wait beside those that run."""
POLL_SECONDS = 0.1
RECHECK_SECONDS = 5.0
ABANDONED = "A change of the engine was interrupted, and nothing ends it."

_log = logging.getLogger("llm_provider.engine")


_BYTES_A_TOKEN = 3


class QueueFull(Exception):
    """As many requests wait as may."""


class Stopping(Exception):
    """The chat API stops: what has not begun will not."""


@dataclass(frozen=True)
class Need:
    """What a request asks of a context that is shared: its size in bytes, and its most tokens."""

    size: int = 0
    most: int | None = None

    def tokens(self, share: float) -> float:
        """An estimate. `share` is what each conversation may count on; half of it is kept for an
        answer that nobody bounds. A token is seldom less than three bytes of JSON."""
        return self.size / _BYTES_A_TOKEN + (share / 2 if self.most is None else self.most)


NO_NEED = Need()


class Turn:
    """A request's place: first in the line, then at the engine."""

    def __init__(
        self, gate: Gate, number: int, arrived: float, hold_seconds: float, need: Need = NO_NEED
    ) -> None:
        self._gate = gate
        self.number = number
        self.arrived = arrived
        self.need = need
        self.alone = False
        self.leaving = False
        self.provider = gate.provider
        self.taken = 0.0
        self.hold_left = hold_seconds
        self.held_until = math.inf
        self.future: asyncio.Future[None] | None = None
        self.running = False

    def broke(self) -> None:
        """Have others held until the engine has been asked: it may have died, not this alone."""
        # Not the error's own words, which may quote the request.
        self._gate.lost(self.provider, f"{self.provider.name} broke off an answer.")

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
                self.broke()
                raise
            except (EngineUnreachableError, EngineLoadingError) as error:
                self._gate.lost(provider, str(error))
                await self._gate.again(self)
            except ContextFullError:
                if self.alone:
                    raise
                self.alone = True
                await self._gate.step_back(self)


class Gate:
    """The one way to the engine. `parallel` requests run at once; see the module for the others.

    `hold_seconds`: how long a request is held while the engine is not there. Waiting in line while
    the engine works does not count.
    """

    def __init__(self, provider: LLMProvider, parallel: int, hold_seconds: float) -> None:
        self.provider = provider
        self.parallel = parallel
        self.capacity = Capacity()
        self.running = 0
        self.leaving = 0
        self._turns: set[Turn] = set()
        self._former: list[LLMProvider] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._taken = 0.0
        self._hold_seconds = hold_seconds
        self._waiting: deque[Turn] = deque()  # by their numbers
        self._numbers = itertools.count()
        self._ready = False
        self._paused: str | None = None
        self._pause_seconds = 0.0
        self._abandoned = False
        self.stopping = False
        self.retiring = False
        self._shut_at = time.monotonic()
        self._expiry: asyncio.TimerHandle | None = None
        self._reason = f"{provider.name} has not been asked yet."
        self._load_failure: str | None = None
        self._lost = asyncio.Event()

    # What is told of it.

    @property
    def open(self) -> bool:
        """Whether requests pass now."""
        return self._ready and self._paused is None and not self.stopping

    @property
    def queued(self) -> int:
        """Requests that wait for others to end."""
        return len(self._waiting) if self.open else 0

    @property
    def held(self) -> int:
        """Requests that wait for the engine."""
        return 0 if self.open else len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether the engine answered when it was last asked."""
        return self._ready

    @property
    def paused(self) -> bool:
        """Whether requests are held on purpose."""
        return self._paused is not None

    @property
    def waiting_for(self) -> str:
        """What stands between requests and the engine, as sentences."""
        if self._paused is not None:
            return self._paused
        reason = f"{ABANDONED} {self._reason}" if self._abandoned else self._reason
        if self._load_failure is None:
            return reason
        return f"{reason} Loading failed: {self._load_failure}"

    @property
    def empty(self) -> bool:
        """Whether no request runs or waits."""
        return not self._turns and not self._waiting

    # Requests.

    @asynccontextmanager
    async def turn(self, arrived: float, need: Need = NO_NEED) -> AsyncGenerator[Turn, None]:
        """Wait in line; what is entered is at the engine, and is its place until left.

        `arrived` is when the request came (time.monotonic). Where conversations share one context,
        those run together whose needs it has room for. Raises QueueFull at once where the line
        has no place, EngineLoadingError when held for too long, Stopping.
        """
        if self.running + len(self._waiting) >= self.parallel + QUEUE:
            raise QueueFull
        turn = Turn(self, next(self._numbers), arrived, self._hold_seconds, need)
        await self._wait(turn)
        try:
            yield turn
        finally:
            self._leave(turn)

    async def again(self, turn: Turn) -> None:
        """Put a request that has not begun back to where it stood: before all that came later."""
        if self.open and not turn.leaving:  # the engine is there again: the place is still its own
            return
        await self.step_back(turn)

    async def step_back(self, turn: Turn) -> None:
        """Let others pass, and wait for a turn anew."""
        self._leave(turn)
        await self._wait(turn)

    async def _wait(self, turn: Turn) -> None:
        if self.stopping:
            raise Stopping
        if self.open and not self._waiting and self._fits(turn):
            self._enter(turn)
            return
        turn.future = asyncio.get_running_loop().create_future()
        insort(self._waiting, turn, key=lambda each: each.number)
        if not self.open:
            self._hold(turn)
            self._arm()
        self._pump()
        try:
            await turn.future
        except BaseException:
            if turn.running:  # let in, and cancelled before it knew
                self._leave(turn)
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _fits(self, turn: Turn) -> bool:
        if self.running >= self.parallel:
            return False
        return self.running == 0 or self._taken + self._cost(turn) <= self._room

    @property
    def _room(self) -> float:
        """Tokens that all conversations share; without end where each has a context of its own."""
        size = self.capacity.context_size if self.provider.shares_context else None
        return size or math.inf

    def _cost(self, turn: Turn) -> float:
        if self._room == math.inf:
            return 0
        return math.inf if turn.alone else turn.need.tokens(self._room / self.parallel)

    def _enter(self, turn: Turn) -> None:
        turn.running = True
        turn.leaving = False
        turn.provider = self.provider
        self._turns.add(turn)
        turn.taken = self._cost(turn)
        self._taken += turn.taken
        self.running += 1

    def _leave(self, turn: Turn) -> None:
        if not turn.running:
            return
        turn.running = False
        self._turns.discard(turn)
        if turn.leaving:
            self.leaving -= 1
            if not self.leaving:
                self._last_left()
            return
        self.running -= 1
        self._taken -= turn.taken
        if self.running == 0:
            self._taken = 0.0  # infinity less itself is no number
        self._pump()

    def _last_left(self) -> None:
        """Close the engines that nobody asks any more."""
        former, self._former = self._former, []
        for provider in former:
            task = asyncio.create_task(provider.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _pump(self) -> None:
        while self._waiting and self.open and self._fits(self._waiting[0]):
            turn = self._waiting.popleft()
            if turn.future is not None and not turn.future.done():
                self._enter(turn)
                turn.future.set_result(None)

    # Holding.

    def _hold(self, turn: Turn) -> None:
        seconds = 0.0 if self._abandoned else max(turn.hold_left, self._pause_seconds)
        turn.held_until = max(turn.arrived, self._shut_at) + seconds

    def _arm(self) -> None:
        """Have those sent away whose time is over, when the first of them is."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._waiting and not self.open:
            first = min(turn.held_until for turn in self._waiting)
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, first - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        for turn in [turn for turn in self._waiting if turn.held_until <= now]:
            self._send_away(
                turn, EngineLoadingError(f"The engine is not ready: {self.waiting_for}")
            )
        self._arm()

    def _send_away(self, turn: Turn, error: Exception) -> None:
        self._waiting.remove(turn)
        if turn.future is not None and not turn.future.done():
            turn.future.set_exception(error)

    def _changed(self, was_open: bool) -> None:
        """Begin or end the holding of all in line, where the gate shut or opened."""
        now = time.monotonic()
        if was_open and not self.open:
            self._shut_at = now
            for turn in self._waiting:
                self._hold(turn)
        elif self.open and not was_open:
            for turn in self._waiting:
                turn.hold_left = turn.held_until - now
        self._arm()
        self._pump()

    # The engine.

    def lost(self, provider: LLMProvider, reason: str) -> None:
        """Hold requests: the engine would not answer. What is said of a former one is ignored."""
        if provider is not self.provider:
            return
        if reason != self._reason or self._ready:
            _log.warning("engine not ready: %s", reason)
        was_open = self.open
        self._reason = reason
        self._ready = False
        self._lost.set()
        self._changed(was_open)

    async def watch(self) -> None:
        """Ask until a stop: often, and loading what is not loaded, until ready; then seldom."""
        while not self.stopping:
            try:
                ready = await self.probe(load=True)
            except Exception:
                # A defect, but one that must not leave the API waiting for ever.
                _log.exception("the engine's state could not be told")
                ready = False
            if ready:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), RECHECK_SECONDS)
            if not self._ready:
                # Not at once, should the engine call itself ready and yet refuse.
                await asyncio.sleep(POLL_SECONDS)

    async def probe(self, *, load: bool = False) -> bool:
        """Whether the engine is ready now; if not, `waiting_for` says what for.

        With `load`, an engine that waits to be told is told, and this returns when it has loaded.
        """
        provider = self.provider
        try:
            await provider.ready()
        except LLMError as error:
            self.lost(provider, str(error))
            if load and isinstance(error, EngineLoadingError):
                await self._load(provider)
            return False
        if not self._ready:
            capacity = await self._capacity(provider)
            if provider is not self.provider or self._ready:
                return self._ready
            self.capacity = capacity
            _log.info("engine ready", extra={"provider": provider.name, "model": provider.model})
            was_open = self.open
            self._lost.clear()
            self._ready = True
            self._abandoned = False
            self._load_failure = None
            self._changed(was_open)
        return self._ready

    async def _capacity(self, provider: LLMProvider) -> Capacity:
        """What a ready engine says of itself; that it would not say must not keep it from work."""
        try:
            return await provider.capacity()
        except LLMError as error:
            _log.warning("the engine's capacity is not known: %s", error)
            return Capacity()

    async def _load(self, provider: LLMProvider) -> None:
        try:
            await provider.load()
        except LLMError as error:
            if provider is not self.provider:
                return
            if str(error) != self._load_failure:
                _log.warning("loading failed: %s", error)
            self._load_failure = str(error)

    # Changes.

    def pause(self, reason: str, seconds: float = 0.0) -> None:
        """Hold requests until `resume` or `point`; those that run go on. Not any more, retiring.

        `seconds`: how long that may take, where it is longer than `hold_seconds`. It counts for all
        that wait from then on, also once another engine has been pointed to that is not ready yet.
        """
        if self.retiring:
            return
        was_open = self.open
        if self._paused is None:
            _log.info("requests are held: %s", reason)
        self._paused = reason
        self._pause_seconds = seconds
        self._abandoned = False
        if not was_open:
            for turn in self._waiting:
                self._hold(turn)
        self._changed(was_open)

    def resume(self) -> None:
        """Let requests pass again, as far as the engine is ready."""
        if self._paused is not None:
            _log.info("requests pass again", extra={"held": len(self._waiting)})
        was_open = self.open
        self._paused = None
        self._changed(was_open)

    def abandon(self) -> None:
        """End a hold that nobody will end: let requests pass where the engine is ready.

        Where it is not, those that wait are sent away at once, and so are those that come, until it
        is ready or somebody holds requests again: nobody is there who would start it.
        """
        _log.error("the hold is ended: the process that held requests is gone")
        self._abandoned = not self._ready
        self._pause_seconds = 0.0
        self.resume()
        if self._abandoned:
            for turn in self._waiting:
                self._hold(turn)
            self._arm()

    def point(self, provider: LLMProvider, parallel: int) -> None:
        """Change over to another engine: no request is lost.

        Those that run end at the engine where they began, as long as that is there; the others go
        to `provider`, in order, once it is ready. Retiring, this stays with its engine.
        """
        if self.retiring:
            return
        for turn in self._turns:
            turn.leaving = True
        self.leaving += self.running
        self.running, self._taken = 0, 0.0
        self._former.append(self.provider)
        self.provider, self.parallel = provider, parallel
        self.capacity = Capacity()
        self._abandoned = False
        self._load_failure = None
        self.lost(provider, f"{provider.name} has not been asked yet.")
        if not self.leaving:
            self._last_left()

    def retire(self) -> None:
        """Stay with this engine, and hold nothing on purpose: all that came is to be ended."""
        self.retiring = True
        self.resume()

    def stop(self) -> None:
        """Send away all that wait, and let none in; what runs goes on."""
        self.stopping = True
        for turn in list(self._waiting):
            self._send_away(turn, Stopping())
