"""Waits for a state, and reports the last state that was seen when the wait is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

State = TypeVar("State")
Ignored = tuple[type[Exception], ...]


def until(
    look: Callable[[], State],
    what: str,
    wanted: Callable[[State], object] = bool,
    *,
    seconds: float = 180,
    every: float = 0.2,
    ignored: Ignored = (),
) -> State:
    """Look until `wanted` accepts the state, and return that state.

    Fails after `seconds` with `what` was waited for and the last state that was seen. Exceptions
    that `look` raises end the wait, except those of `ignored`: they are states as well.
    """
    end = time.monotonic() + seconds
    while True:
        seen = _Seen(look, wanted, ignored)
        if seen.good:
            return seen.state
        assert time.monotonic() < end, seen.report(what, seconds)
        time.sleep(every)


async def until_async(
    look: Callable[[], State],
    what: str,
    wanted: Callable[[State], object] = bool,
    *,
    seconds: float = 10,
    every: float = 0.02,
    ignored: Ignored = (),
) -> State:
    """Wait as `until` does, while the event loop goes on; `look` runs in a thread."""
    end = time.monotonic() + seconds
    while True:
        seen = await asyncio.to_thread(_Seen, look, wanted, ignored)
        if seen.good:
            return seen.state
        assert time.monotonic() < end, seen.report(what, seconds)
        await asyncio.sleep(every)


class _Seen(Generic[State]):
    """What one look saw: a state, or an exception that counts as one."""

    state: State

    def __init__(
        self, look: Callable[[], State], wanted: Callable[[State], object], ignored: Ignored
    ) -> None:
        self.good = False
        try:
            self.state = look()
        except ignored as error:
            self._text = f"{type(error).__name__}: {error}"
        else:
            self._text = repr(self.state)
            self.good = bool(wanted(self.state))

    def report(self, what: str, seconds: float) -> str:
        return f"Waited {seconds:g} s for {what}. The last state was: {self._text}"
