"""Rate limits by token buckets: one for each key of the chat API, or for each address."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rate:
    """`per_minute` requests on average, up to `burst` of them at once."""

    per_minute: float
    burst: int

    def __post_init__(self) -> None:
        if not 0 < self.per_minute < math.inf:
            raise ValueError(f"The rate is {self.per_minute} per minute; it must be above 0.")
        if self.burst < 1:
            raise ValueError(f"The burst is {self.burst}; it must be at least 1.")


class TokenBucket:
    """A bucket that is full at first; each request takes one token of it."""

    def __init__(self, rate: Rate, clock: Clock = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._level = float(rate.burst)
        self._at = clock()

    def take(self) -> float:
        """Take a token; return 0, or the seconds until there is one, and take none then."""
        self._fill()
        # A clock's fractions do not add up to exactly one token.
        if self._level >= 1 - 1e-9:
            self._level = max(self._level - 1, 0.0)
            return 0.0
        return (1 - self._level) * 60 / self.rate.per_minute

    def give_back(self) -> None:
        """Return a token: the request was refused for another reason, before it did anything."""
        self._fill()
        self._level = min(self._level + 1, float(self.rate.burst))

    def change(self, rate: Rate) -> None:
        """Set another rate; what is in the bucket stays, as far as it fits."""
        self._fill()
        self.rate = rate
        self._level = min(self._level, float(rate.burst))

    def _fill(self) -> None:
        now = self._clock()
        # A clock that was set back takes nothing away.
        seconds = max(now - self._at, 0.0)
        self._at = now
        self._level = min(self._level + seconds * self.rate.per_minute / 60, float(self.rate.burst))


class RateLimiter:
    """The buckets of all keys, or of all addresses: at most `most`, the last used ones.

    With more of them, the one that was not used for longest is forgotten, and starts full again.
    """

    def __init__(self, clock: Clock = time.monotonic, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, rate: Rate | None) -> float:
        """Take a token of `key`'s bucket; return 0, or the seconds until there is one.

        Without a rate there is no limit. A rate other than last time changes the bucket.
        """
        if rate is None:
            self._buckets.pop(key, None)
            return 0.0
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(rate, self._clock)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
            if bucket.rate != rate:
                bucket.change(rate)
        return bucket.take()

    def give_back(self, key: Hashable) -> None:
        """Return the last token to `key`'s bucket, where it has one."""
        if (bucket := self._buckets.get(key)) is not None:
            bucket.give_back()


def retry_after(seconds: float) -> str:
    """Return the value of the header Retry-After: whole seconds, at least 1."""
    return str(max(1, math.ceil(seconds)))
