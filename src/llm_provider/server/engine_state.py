"""The state of the engine that the chat API stands before: which one, and whether it may be asked.

    NOT_READY ──ready──> READY        it answers that it is ready
    READY ──lost──> NOT_READY         it would not answer, or broke off
    NOT_READY ──abandon──> ABANDONED  a change was interrupted: nobody will start it
    ABANDONED ──ready──> READY        it came back all the same
    ABANDONED ──hold──> NOT_READY     somebody changes the engine again
    any ──switch──> NOT_READY         another engine takes its place, not asked yet

Beside it, requests can be held on purpose, whatever the state: `hold` and `release`. Who waits for
the engine, and in which order, is the subject of `admission`, which observes this state.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from contextlib import suppress
from typing import Protocol

from llm_provider.errors import EngineLoadingError, LLMError
from llm_provider.providers.base import Capacity, LLMProvider

POLL_SECONDS = 0.1
RECHECK_SECONDS = 5.0
ABANDONED = "A change of the engine was interrupted, and nothing ends it."

_log = logging.getLogger("llm_provider.engine")


class State(enum.Enum):
    """What is known of the engine; the module has the transitions."""

    NOT_READY = "not ready"
    READY = "ready"
    ABANDONED = "abandoned"


class Observer(Protocol):
    """Is notified of an engine's changes."""

    def engine_changed(self) -> None:
        """Whether it may be asked, or for how long requests are held, may be another."""

    def engine_switched(self, former: LLMProvider) -> None:
        """Another engine takes the place of `former`, which the observer closes."""


class EngineState:
    """The engine now, and its state. The settings allow that `allowed` requests run at once."""

    def __init__(self, provider: LLMProvider, allowed: int) -> None:
        self.provider = provider
        self.allowed = allowed
        self.capacity = Capacity()
        self.state = State.NOT_READY
        self.retiring = False
        self.stopping = False
        self.hold_seconds = 0.0
        """How long a change may take that has begun and not ended; 0 without one."""
        self._held_for: str | None = None
        self._reason = f"{provider.name} has not been asked yet."
        self._load_failure: str | None = None
        self._lost = asyncio.Event()
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        """Notify `observer` of every change."""
        self._observers.append(observer)

    # State.

    @property
    def ready(self) -> bool:
        """Whether the engine answered when it was last asked."""
        return self.state is State.READY

    @property
    def abandoned(self) -> bool:
        """Whether nobody is there who would start the engine."""
        return self.state is State.ABANDONED

    @property
    def on_hold(self) -> bool:
        """Whether requests are held on purpose."""
        return self._held_for is not None

    @property
    def open(self) -> bool:
        """Whether the engine may be asked now."""
        return self.ready and not self.on_hold

    @property
    def parallel(self) -> int:
        """How many requests run at once: as many as the settings allow and the engine has slots."""
        return min(self.allowed, self.capacity.parallel or self.allowed)

    @property
    def waiting_for(self) -> str:
        """What stands between requests and the engine, as sentences."""
        if self._held_for is not None:
            return self._held_for
        reason = f"{ABANDONED} {self._reason}" if self.abandoned else self._reason
        if self._load_failure is None:
            return reason
        return f"{reason} Loading failed: {self._load_failure}"

    # Readiness.

    def lost(self, provider: LLMProvider, reason: str) -> None:
        """The engine would not answer. What is said of a former one is ignored."""
        if provider is not self.provider:
            return
        if reason != self._reason or self.ready:
            _log.warning("engine not ready: %s", reason)
        self._reason = reason
        if self.ready:
            self.state = State.NOT_READY
        self._lost.set()
        self._notify()

    async def watch(self) -> None:
        """Ask until a stop: often, and loading what is not loaded, until ready; then seldom."""
        while not self.stopping:
            try:
                ready = await self.probe(load=True)
            except Exception:
                # A defect, but one that must not leave the API waiting for ever.
                _log.exception("the engine's state could not be read")
                ready = False
            if ready:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), RECHECK_SECONDS)
            if not self.ready:
                # Not at once, should the engine call itself ready and yet refuse.
                await asyncio.sleep(POLL_SECONDS)

    async def probe(self, *, load: bool = False) -> bool:
        """Whether the engine is ready now; if not, `waiting_for` says what for.

        With `load`, an engine that loads on demand is asked to; this returns when it has loaded.
        """
        provider = self.provider
        try:
            await provider.ready()
        except LLMError as error:
            self.lost(provider, str(error))
            if load and isinstance(error, EngineLoadingError):
                await self._load(provider)
            return False
        if not self.ready:
            capacity = await self._ask_capacity(provider)
            if provider is not self.provider or self.ready:
                return self.ready
            self.capacity = capacity
            _log.info("engine ready", extra={"provider": provider.name, "model": provider.model})
            self._lost.clear()
            self._load_failure = None
            self.state = State.READY
            self._end_change()
            self._notify()
        return self.ready

    async def _ask_capacity(self, provider: LLMProvider) -> Capacity:
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

    def hold(self, reason: str, seconds: float = 0.0) -> None:
        """Hold requests until `release` or `switch`; those that run go on. Not any more, retiring.

        `seconds`: how long that may take, where it is longer than the time of any request. It
        counts for all that wait from then on, also once another engine took over that is not ready,
        until requests pass again.
        """
        if self.retiring:
            return
        if self._held_for is None:
            _log.info("requests are held: %s", reason)
        self._held_for = reason
        self.hold_seconds = seconds
        if self.abandoned:
            self.state = State.NOT_READY
        self._notify()

    def release(self) -> None:
        """Let requests pass again, as far as the engine is ready."""
        self._held_for = None
        self._end_change()
        self._notify()

    def abandon(self) -> None:
        """End a hold that nobody will end: let requests pass where the engine is ready.

        Where it is not, those that wait are sent away at once, and so are those that come, until it
        is ready or somebody holds requests again: nobody is there who would start it.
        """
        _log.error("the hold is ended: the process that held requests is gone")
        if not self.ready:
            self.state = State.ABANDONED
        self.hold_seconds = 0.0
        self.release()

    def switch(self, provider: LLMProvider, allowed: int) -> None:
        """Change over to another engine, not asked yet. Retiring, this stays with its engine."""
        if self.retiring:
            return
        former, self.provider, self.allowed = self.provider, provider, allowed
        self.capacity = Capacity()
        self._load_failure = None
        if self.abandoned:
            self.state = State.NOT_READY
        for observer in self._observers:
            observer.engine_switched(former)
        self.lost(provider, f"{provider.name} has not been asked yet.")

    def retire(self) -> None:
        """Stay with this engine, and hold nothing on purpose: all that came is to be ended."""
        self.retiring = True
        self.release()

    def stop(self) -> None:
        """Ask no more whether it is ready."""
        self.stopping = True

    def _end_change(self) -> None:
        """Forget how long a change may take, once it has ended: a later loss is not part of it."""
        if self.open:
            self.hold_seconds = 0.0

    def _notify(self) -> None:
        for observer in self._observers:
            observer.engine_changed()
