"""A provider for programs without asyncio: the same methods, which wait.

Each provider has an event loop in a thread of its own, so that it works where a loop runs already
(in a notebook), and from several threads at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from llm_provider.errors import EngineUnreachableError, StreamInterruptedError
from llm_provider.providers.base import Capacity, LLMProvider, OnDropped
from llm_provider.providers.chat_types import ChatCompletion, ChatCompletionChunk
from llm_provider.providers.embeddings import Embeddings
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.selection import get_llm_provider
from llm_provider.providers.stream import Stream

T = TypeVar("T")
P = ParamSpec("P")


class SyncLLMProvider:
    """A provider whose methods wait for their results; they are `LLMProvider`'s.

    `provider` is used by this object alone. Use it as a context manager, or call `close()`.
    """

    def __init__(self, provider: LLMProvider) -> None:
        self.name = provider.name
        self.base_url = provider.base_url
        self.model = provider.model
        self._provider = provider
        self._loop = _LoopThread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; what other threads wait for ends as interrupted."""
        if self._loop.running:
            self._loop.run(self._provider.close())
            self._loop.stop()

    def health(self) -> None:
        """Return if the engine's process answers, ready or not."""
        self._wait(self._provider.health())

    def ready(self) -> None:
        """Return if the engine would answer a chat request now."""
        self._wait(self._provider.ready())

    def capacity(self) -> Capacity:
        """Ask a ready engine for its context size, its slots and its share of the GPU."""
        return self._wait(self._provider.capacity())

    def load(self) -> None:
        """Have the engine load the model."""
        self._wait(self._provider.load())

    def models(self) -> list[str]:
        """Return the names of the models that the engine serves."""
        return self._wait(self._provider.models())

    def chat(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> ChatCompletion:
        """Send a chat request and return the whole answer."""
        return self._wait(self._provider.chat(body, messages=messages, **options))

    def stream(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> SyncStream[ChatCompletionChunk]:
        """Send a chat request once the stream is read; return its events."""
        return SyncStream(self._loop, self._provider.stream(body, messages=messages, **options))

    def generate(self, prompt: str, *, system: str | None = None, **options: Any) -> str:
        """Return the answer's text to one message."""
        return self._wait(self._provider.generate(prompt, system=system, **options))

    def generate_stream(
        self, prompt: str, *, system: str | None = None, **options: Any
    ) -> SyncStream[str]:
        """Return the text of the answer to one message, piece by piece, as it arrives."""
        stream = self._provider.generate_stream(prompt, system=system, **options)
        return SyncStream(self._loop, stream)

    def embed(self, texts: str | Sequence[str], **options: Any) -> Embeddings:
        """Return a vector for each text."""
        return self._wait(self._provider.embed(texts, **options))

    def send(
        self, path: str, body: Mapping[str, Any], *, on_dropped: OnDropped | None = None
    ) -> Answer:
        """POST a body to one of OpenAI's routes and return the whole answer.

        `on_dropped` is called in the provider's own thread.
        """
        return self._wait(self._provider.send(path, body, on_dropped=on_dropped))

    def send_form(self, path: str, form: bytes, content_type: str) -> Answer:
        """POST a form to one of the engine's routes and return the whole answer."""
        return self._wait(self._provider.send_form(path, form, content_type))

    def raw_stream(
        self, path: str, body: Mapping[str, Any], *, on_dropped: OnDropped | None = None
    ) -> SyncStream[bytes]:
        """POST a body to one of OpenAI's routes; return the bytes of its stream as they arrive.

        `on_dropped` is called in the provider's own thread.
        """
        chunks = self._provider.raw_stream(path, body, on_dropped=on_dropped)
        return SyncStream(self._loop, Stream(chunks))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._loop.running:
            work.close()
            raise EngineUnreachableError(
                f"{self.name} at {self.base_url} is not asked any more: this provider is closed."
            )
        return self._loop.run(work)


class SyncStream(Iterator[T], Generic[T]):
    """What arrives of a streamed answer, in order.

    `with` or `close()` closes the connection, which makes the engine stop its work. A stream that
    was closed is at its end.
    """

    def __init__(self, loop: _LoopThread, stream: Stream[T]) -> None:
        self._loop = loop
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """Wait for what arrives next. Raises what the method that returned the stream raises."""
        if not self._loop.running:
            raise StreamInterruptedError("The stream ended early: its provider is closed.")
        for item in self._loop.run(_next(self._stream)):
            return item
        raise StopIteration

    def close(self) -> None:
        """Close the connection; another thread that reads gets StreamInterruptedError."""
        if self._loop.running:
            self._loop.run(self._stream.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


async def _next(items: AsyncIterator[T]) -> list[T]:
    """Return what comes next; an empty list at the end."""
    with suppress(StopAsyncIteration):
        return [await anext(items)]
    return []


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.running = True
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        started = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(started),), name="llm-provider", daemon=True
        )
        self._thread.start()
        started.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the result of `work`; what interrupts the waiting (Ctrl-C) ends the work."""
        result = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return result.result()
        finally:
            result.cancel()

    def stop(self) -> None:
        """End the loop and its thread."""
        self.running = False
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        started.set()
        await self._stopping.wait()


def _waiting(make: Callable[P, LLMProvider]) -> Callable[P, SyncLLMProvider]:
    def made(*args: P.args, **kwargs: P.kwargs) -> SyncLLMProvider:
        return SyncLLMProvider(make(*args, **kwargs))

    made.__doc__ = "Return what `get_llm_provider` returns, for programs without asyncio."
    return made


get_sync_llm_provider = _waiting(get_llm_provider)
