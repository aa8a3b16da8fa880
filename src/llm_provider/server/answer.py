"""An engine's answer on its way to a client: whole, or piece by piece as it comes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Send

from llm_provider.errors import (
    EngineLoadingError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.server.admission import AdmissionQueue, Ticket
from llm_provider.server.api_errors import MAY_HAVE_RUN, APIError, note_failure
from llm_provider.server.stall_timer import stall_timer
from llm_provider.server.token_estimate import TokenEstimate
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translator import Asked, Translator
from llm_provider.server.usage import StreamOutcome, tokens_of

_Asked = TypeVar("_Asked")

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

    `arrived` is when it came (time.monotonic); `estimate` is what it takes of the engine; `notes`
    takes what the log is to tell; `check` raises APIError where the engine of the moment cannot
    serve it: that may be another than when it came.
    """

    asked: Asked
    arrived: float
    estimate: TokenEstimate
    notes: dict[str, object]
    check: Callable[[], None]

    def translator(self, provider: LLMProvider) -> Translator:
        """Return the translation for an engine. Raises what `check` and the translator raise."""
        self.check()
        return self.asked.route.translator(self.asked, provider)


class EngineAnswer(ABC):
    """The answer to one question, sent by `send`."""

    def __init__(self, queue: AdmissionQueue, question: Question, send: Send) -> None:
        self._queue = queue
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

        translator, answer = await self._ask(ask)
        self._count(tokens_of(answer.data))
        data = translator.whole(answer)
        headers = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"content-length", str(len(data)).encode()),
            *translator.headers,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data})

    async def _ask(self, ask: Callable[[LLMProvider], Awaitable[_Asked]]) -> _Asked:
        """Ask when it is the request's turn: at once, where it takes no slot of the engine's."""
        question, queue = self._question, self._queue
        if not question.asked.route.takes_slot and queue.open:
            # It changes nothing, and may be asked again: of another engine, should this one go.
            with suppress(EngineUnreachableError, EngineLoadingError, StreamInterruptedError):
                return await ask(queue.engine.provider)
        async with queue.admit(question.arrived, question.estimate) as ticket:
            return await ticket.ask(ask)


class StreamedAnswer(EngineAnswer):
    """A streamed answer, passed on as it comes."""

    def __init__(self, queue: AdmissionQueue, question: Question, send: Send) -> None:
        super().__init__(queue, question, send)
        self._begun = False

    async def send(self) -> None:
        async def begin(
            provider: LLMProvider,
        ) -> tuple[Translator, bytes, AsyncGenerator[bytes, None]]:
            translator = self._question.translator(provider)
            # Up to the first bytes, a failure can still be answered with a status of its own.
            chunks = provider.raw_stream(translator.path, translator.body)
            return translator, await anext(chunks), chunks

        question = self._question
        async with self._queue.admit(question.arrived, question.estimate) as ticket:
            translator, first, chunks = await ticket.ask(begin)
            async with aclosing(chunks):
                self._notes["first_bytes_seconds"] = round(time.monotonic() - question.arrived, 4)
                await self._begin(translator)
                await self._pass_on(translator, first, chunks, ticket)

    async def cut_off(self) -> None:
        await self._fail(_CUT_OFF)

    async def _begin(self, translator: Translator) -> None:
        if self._begun:
            return
        self._begun = True
        headers = [(b"content-type", translator.media_type), *_STREAM_HEADERS, *translator.headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _pass_on(
        self,
        translator: Translator,
        first: bytes,
        chunks: AsyncGenerator[bytes, None],
        ticket: Ticket,
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
                ticket.report_broken()
            await self._fail(error)
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
