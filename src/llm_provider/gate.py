"""What stands between requests and the engine: its readiness, and its number of slots."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from llm_provider.base import LLMProvider
from llm_provider.errors import LLMError, Loading, NotReachable

Answer = TypeVar("Answer")

POLL_SECONDS = 0.25
RECHECK_SECONDS = 5.0

_log = logging.getLogger("llm_provider.engine")


class QueueFull(Exception):
    """As many requests wait for a slot as may."""


class Engine:
    """A provider whose readiness is watched, and whose requests are held until it is ready."""

    def __init__(self, provider: LLMProvider, hold_seconds: float) -> None:
        self.provider = provider
        self._hold_seconds = hold_seconds
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost_at = time.monotonic()
        self._reason = f"{provider.name} has not been asked yet."
        self._load_failure: str | None = None

    @property
    def waiting_for(self) -> str:
        """What stands between the engine and its being ready, as sentences."""
        if self._load_failure is None:
            return self._reason
        return f"{self._reason} Loading failed: {self._load_failure}"

    async def watch(self) -> None:
        """Ask for ever: often, and loading what is not loaded, until ready; then now and then."""
        while True:
            try:
                ready = await self.probe(load=True)
            except Exception:
                # A defect, but one that must not leave the API waiting for ever.
                _log.exception("the engine's state could not be told")
                ready = False
            if ready:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), RECHECK_SECONDS)
            else:
                await asyncio.sleep(POLL_SECONDS)

    async def probe(self, *, load: bool = False) -> bool:
        """Whether the engine is ready now; if not, `waiting_for` says what for.

        With `load`, an engine that waits to be told is told, and this returns when it has loaded.
        """
        try:
            await self.provider.ready()
        except LLMError as error:
            self._lose(str(error))
            if load and isinstance(error, Loading):
                await self._load()
            return False
        if not self._ready.is_set():
            _log.info("engine ready", extra={"provider": self.provider.name})
            self._lost.clear()
            self._ready.set()
        return True

    async def run(self, arrived: float, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return `ask`'s answer, held back while the engine is not ready.

        Asked again only after an error that says the engine has not begun. `arrived` is when the
        request came (time.monotonic). Raises Loading when it was held for too long.
        """
        deadline = math.inf
        while True:
            if not self._ready.is_set():
                deadline = min(deadline, self._deadline(arrived))
                await self._until_ready(deadline)
            try:
                return await ask()
            except (NotReachable, Loading) as error:
                self._lose(str(error))
                deadline = min(deadline, self._deadline(arrived))
                if time.monotonic() >= deadline:
                    raise
                # Not at once, should the engine call itself ready and yet refuse.
                await asyncio.sleep(POLL_SECONDS)

    def _deadline(self, arrived: float) -> float:
        """Waiting for a slot while the engine worked does not count as being held."""
        return max(arrived, self._lost_at) + self._hold_seconds

    async def _until_ready(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._ready.wait()
        except TimeoutError:
            raise Loading(f"The engine is not ready: {self.waiting_for}") from None

    async def _load(self) -> None:
        try:
            await self.provider.load()
        except LLMError as error:
            if str(error) != self._load_failure:
                _log.warning("loading failed: %s", error)
            self._load_failure = str(error)
        else:
            self._load_failure = None

    def _lose(self, reason: str) -> None:
        if reason != self._reason or self._ready.is_set():
            _log.warning("engine not ready: %s", reason)
        self._reason = reason
        if self._ready.is_set():
            self._ready.clear()
            self._lost.set()
            self._lost_at = time.monotonic()


class Slots:
    """As many at once as the engine has slots; the rest wait in order, up to `queue` of them."""

    def __init__(self, slots: int, queue: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._queue = queue
        self._waiting = 0

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[None, None]:
        """Hold a slot. Raises QueueFull at once where the queue has no place."""
        if self._free.locked() and self._waiting >= self._queue:
            raise QueueFull
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
