"""An engine's answer on its way to a client: whole, or piece by piece as it comes."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import Send

from llm_provider.errors import (
    EngineTimeoutError,
    LLMError,
    MalformedAnswer,
    StreamInterruptedError,
)
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.server.api_errors import FORESEEN, MAY_HAVE_RUN, APIError, note_failure
from llm_provider.server.dropped_header import dropped_header
from llm_provider.server.stall_timer import stall_timer
from llm_provider.server.ticket import Ticket
from llm_provider.server.token_estimate import TokenEstimate
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translator import Asked, Headers, Translator
from llm_provider.server.usage import StreamOutcome, tokens_of

_STREAM_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
]
_CUT_OFF = APIError(
    503,
    "The chat API stopped before the answer was complete.",
    type="server_error",
    code="stopped",
    headers=MAY_HAVE_RUN,
)


@dataclass(frozen=True)
class Question:
    """A request that is to be put to the engine.

    `arrived` is when it came (time.monotonic); `estimate` is what it takes of the engine;
    `comment_seconds` is how often a stream gets a comment while it waits; `notes` takes what the
    log is to tell; `check` raises APIError where the engine of the moment cannot serve it: that may
    be another than when it came.
    """

    asked: Asked
    arrived: float
    estimate: TokenEstimate
    comment_seconds: float
    notes: dict[str, object]
    check: Callable[[], None]

    def translator(self, provider: LLMProvider) -> Translator:
        """Return the translation for an engine. Raises what `check` and the translator raise."""
        self.check()
        return self.asked.route.translator(self.asked, provider)


class EngineAnswer(ABC):
    """The answer to one question, sent by `send`."""

    def __init__(self, ticket: Ticket, question: Question, send: Send) -> None:
        self._ticket = ticket
        self._question = question
        self._notes = question.notes
        self._send = send

    @abstractmethod
    async def send(self) -> None:
        """Ask the engine and send what it says. Raises what has to be answered in its place."""

    async def cut_off(self) -> None:
        """End an answer that did not come to its end in the time that a stop allows."""
        raise _CUT_OFF

    def _count(self, tokens: tuple[int, int] | None) -> None:
        if tokens is not None:
            self._notes["tokens_in"], self._notes["tokens_out"] = tokens


class WholeAnswer(EngineAnswer):
    """An answer in one piece."""

    async def send(self) -> None:
        async def ask(provider: LLMProvider) -> tuple[Translator, Answer]:
            translator = self._question.translator(provider)
            return translator, await translator.send(provider)

        ticket = self._ticket
        if self._question.asked.route.takes_slot:
            await ticket.enter(self._question.estimate)
            translator, answer = await ticket.ask(ask)
        else:
            translator, answer = await ticket.ask_beside(ask)
        ticket.leave()  # however long the client takes to read it
        self._count(tokens_of(answer.data))
        try:
            data = translator.whole(answer)
        except TranslationError as error:
            raise _fault_of_engine(error) from error
        headers = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"content-length", str(len(data)).encode()),
            *_headers(translator),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data})


class StreamedAnswer(EngineAnswer):
    """A streamed answer, passed on as it comes."""

    def __init__(self, ticket: Ticket, question: Question, send: Send) -> None:
        super().__init__(ticket, question, send)
        self._begun = False

    async def send(self) -> None:
        question = self._question
        try:
            async with self._comments():
                await self._ticket.enter(question.estimate)
                translator, first, chunks = await self._ticket.ask(self._ask)
        except FORESEEN as error:
            await self._fail(error)
            return
        async with aclosing(chunks):
            self._notes["first_bytes_seconds"] = round(time.monotonic() - question.arrived, 4)
            await self._begin(_headers(translator))
            await self._pass_on(translator, first, chunks)

    async def _ask(
        self, provider: LLMProvider
    ) -> tuple[Translator, bytes, AsyncGenerator[bytes, None]]:
        """Put the question. Up to the first bytes, a failure can have a status of its own."""
        translator = self._question.translator(provider)
        chunks = provider.raw_stream(
            translator.path, translator.body, on_dropped=translator.on_dropped
        )
        return translator, await anext(chunks), chunks

    @asynccontextmanager
    async def _comments(self) -> AsyncGenerator[None, None]:
        """Send comments while the request waits for its turn, the first after a while.

        They keep the connections of proxies and clients open. With the first one the answer has
        begun, with status 200, and a failure is an event of the stream. A request that has not
        waited for that long, or is at the engine, can be answered with any status.
        """
        task: asyncio.Task[None] | None = None
        comment = self._question.asked.route.stream.comment

        def start() -> None:
            nonlocal task
            if comment is not None:
                task = asyncio.create_task(self._comment(comment))

        seconds = self._question.comment_seconds
        timer = asyncio.get_running_loop().call_later(seconds, start)
        try:
            yield
        finally:
            timer.cancel()
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _comment(self, comment: bytes) -> None:
        while True:
            if not self._ticket.running:
                await self._begin([])
            if self._begun:
                await self._piece(comment)
            await asyncio.sleep(self._question.comment_seconds)

    async def cut_off(self) -> None:
        await self._fail(_CUT_OFF)

    async def _begin(self, headers: Headers) -> None:
        if self._begun:
            return
        kind = self._question.asked.route.stream.media_type
        sent = [(b"content-type", kind), *_STREAM_HEADERS, *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": sent})
        self._begun = True  # not before: a comment can be cancelled while it waits to be sent

    async def _pass_on(
        self, translator: Translator, first: bytes, chunks: AsyncGenerator[bytes, None]
    ) -> None:
        outcome = StreamOutcome(translator.path)
        outcome.feed(first)
        try:
            async with stall_timer() as timer:

                async def give(data: bytes) -> None:
                    if data:
                        timer.begin()
                        await self._piece(data)
                        timer.end()

                await give(translator.feed(first))
                async for chunk in chunks:
                    outcome.feed(chunk)
                    await give(translator.feed(chunk))
                await give(translator.rest())
        except TimeoutError:
            self._notes["outcome"] = "client_stalled"
            raise ClientDisconnect from None
        except (LLMError, TranslationError) as error:
            if isinstance(error, StreamInterruptedError):
                self._ticket.report_broken()
            await self._fail(_fault_of_engine(error))
            return
        self._count(outcome.tokens)
        if outcome.failed:
            self._notes["outcome"] = "interrupted"
        await self._send({"type": "http.response.body", "body": b""})

    async def _piece(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _fail(self, error: Exception) -> None:
        """Tell of a failure: raise it, or send it as an event where the status is sent."""
        if not self._begun:
            raise error
        problem = APIError.of(error)
        if isinstance(error, LLMError):
            note_failure(self._notes, error)
        self._notes["outcome"] = (
            "interrupted"
            if isinstance(error, StreamInterruptedError | EngineTimeoutError)
            else problem.outcome
        )
        asked = self._question.asked
        errors = asked.route.errors
        event = errors.event(problem.body(errors, asked.request_id))
        await self._send({"type": "http.response.body", "body": event})


def _headers(translator: Translator) -> Headers:
    return [*translator.headers, *dropped_header(translator.dropped)]


def _fault_of_engine(error: Exception) -> Exception:
    """Return the failure to translate an answer as the engine's, not as the client's."""
    return MalformedAnswer(str(error)) if isinstance(error, TranslationError) else error
