"""Memory for the bodies of requests: how much there is, and who gets it next."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass


class OutOfMemoryError(Exception):
    """The bodies in memory left no room for another one in the time that it could wait."""


@dataclass(eq=False)
class _Waiter:
    size: int
    future: asyncio.Future[None]


class BodyBudget:
    """Bytes of memory that all bodies share; requests wait for them, each key in turn.

    All bytes of a body are taken at once and before any of it is read, so that no two bodies that
    are half read can wait for each other. One key gets all but `spare` bytes (or `spare`, where
    that is more): a body of another key, of up to so many bytes, finds room beside any number of
    large or slow ones.
    """

    def __init__(self, total: int, spare: int = 0) -> None:
        self.total = total
        self.used = 0
        self._most_of_one = max(total - spare, spare)
        self._used: Counter[Hashable] = Counter()
        # The key whose turn it is comes first.
        self._lines: OrderedDict[Hashable, deque[_Waiter]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many bodies wait for memory."""
        return sum(map(len, self._lines.values()))

    async def take(self, size: int, key: Hashable, seconds: float) -> None:
        """Take `size` bytes, and wait for them. Raises OutOfMemoryError after `seconds`."""
        waiter = _Waiter(size, asyncio.get_running_loop().create_future())
        self._lines.setdefault(key, deque()).append(waiter)
        self._serve()
        try:
            if not waiter.future.done():
                async with asyncio.timeout(seconds):
                    await waiter.future
        except BaseException as error:
            self._forget(waiter, key)
            if isinstance(error, TimeoutError):
                raise OutOfMemoryError from None
            raise

    def give_back(self, size: int, key: Hashable) -> None:
        """Give bytes of a key back, to whoever waits for them."""
        self.used -= size
        self._used[key] -= size
        if not self._used[key]:
            del self._used[key]
        self._serve()

    def _serve(self) -> None:
        """Give bytes to the keys in turn, until one has to wait for bytes of the others."""
        blocked: set[Hashable] = set()
        while waiting := [key for key in self._lines if key not in blocked]:
            key = waiting[0]
            waiter = self._lines[key][0]
            if waiter.future.cancelled():  # its request has not run since
                self._remove(waiter, key)
                continue
            if self._used[key] + waiter.size > self._most_of_one:
                blocked.add(key)  # it waits for its own bodies, the others do not
                continue
            if self.used + waiter.size > self.total:
                return  # smaller ones do not overtake: it might wait for ever
            self._remove(waiter, key)
            if key in self._lines:
                self._lines.move_to_end(key)
            self.used += waiter.size
            self._used[key] += waiter.size
            waiter.future.set_result(None)

    def _remove(self, waiter: _Waiter, key: Hashable) -> None:
        self._lines[key].remove(waiter)
        if not self._lines[key]:
            del self._lines[key]

    def _forget(self, waiter: _Waiter, key: Hashable) -> None:
        """Drop a request that waits no longer; it may have got its bytes without knowing it."""
        if waiter.future.done() and not waiter.future.cancelled():
            self.give_back(waiter.size, key)
            return
        if waiter in self._lines.get(key, ()):
            self._remove(waiter, key)
        self._serve()
