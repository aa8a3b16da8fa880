"""A streamed answer as an object that is iterated, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from llm_provider.errors import StreamInterruptedError

T = TypeVar("T")


class Stream(AsyncIterator[T], Generic[T]):
    """What arrives of a streamed answer, in order.

    `async with` or `close()` closes the connection, which makes the engine stop its work. A stream
    that was closed is at its end.
    """

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        self._items = items
        self._reading: asyncio.Timeout | None = None
        self._read = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for what arrives next. Raises what the method that returned the stream raises."""
        if self._closed:
            raise StopAsyncIteration
        self._read.clear()
        try:
            async with asyncio.timeout(None) as self._reading:
                return await anext(self._items)
        except TimeoutError:
            if not self._closed:
                raise
            raise StreamInterruptedError("The stream was closed while it was read.") from None
        finally:
            self._reading = None
            self._read.set()

    async def close(self) -> None:
        """Close the connection; another task that reads gets StreamInterruptedError."""
        self._closed = True
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())
            await self._read.wait()
        await self._items.aclose()

    aclose = close
    """For `contextlib.aclosing`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
