"""An engine's answer on its way to a client: whole, or byte for byte as it comes."""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_provider.errors import EngineTimeoutError, LLMError, StreamInterruptedError
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.routes import CHAT
from llm_provider.server.admission import AdmissionQueue, Ticket
from llm_provider.server.api_errors import MAY_HAVE_RUN, APIError, note_failure
from llm_provider.server.public_text import without_addresses_in_errors
from llm_provider.server.routes import Route
from llm_provider.server.stall_timer import stall_timer
from llm_provider.server.token_estimate import TokenEstimate
from llm_provider.server.usage import StreamOutcome, UsageFilter, tokens_of

_SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
]
_JSON = b"application/json"
_CUT_OFF = APIError(
    503,
    "The chat API stopped before the answer was complete.",
    type="server_error",
    code="stopped",
    headers=MAY_HAVE_RUN,
)


@dataclass(frozen=True)
class ProxyRequest:
    """What the engine is asked: `body` at `route`.

    `arrived` is when the request came (time.monotonic); `estimate` is what it takes of the engine's
    context; `notes` takes what the log is to tell; `check` raises APIError where the engine of the
    moment does not serve the model that is asked for: it may be another than when the request came.
    """

    route: Route
    body: dict[str, Any]
    arrived: float
    estimate: TokenEstimate
    notes: dict[str, object]
    check: Callable[[], None]


class ProxyResponse(Response):
    """A response that is the engine's own."""

    def __init__(self, queue: AdmissionQueue, asked: ProxyRequest) -> None:
        super().__init__()
        self._queue = queue
        self._asked = asked
        self._notes = asked.notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises ClientDisconnect when the client leaves; the engine stops at once then."""

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.create_task(self._answer(send))
        left = asyncio.create_task(leave())
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            work.result()
        except asyncio.CancelledError:
            if not self._queue.stopping:
                raise
            # The time that a stop allows is over: tell, rather than just break off.
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._end(send, _CUT_OFF)
        finally:
            left.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    @abstractmethod
    async def _answer(self, send: Send) -> None:
        """Ask the engine and send what it says."""

    async def _end(self, send: Send, error: Exception) -> None:
        """Raise a failure, which is answered in place of what has not begun."""
        raise error

    def _count(self, tokens: tuple[int, int] | None) -> None:
        if tokens is not None:
            self._notes["tokens_in"], self._notes["tokens_out"] = tokens


class WholeResponse(ProxyResponse):
    """An answer in one piece."""

    async def _answer(self, send: Send) -> None:
        async def ask(provider: LLMProvider) -> Answer:
            self._asked.check()
            return await provider.send(self._asked.route.engine_path, self._asked.body)

        async with self._queue.admit(self._asked.arrived, self._asked.estimate) as ticket:
            answer = await ticket.ask(ask)
        self._count(tokens_of(answer.data))
        raw = self._shaped(answer)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", _JSON),
                    (b"content-length", str(len(raw)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": raw})

    def _shaped(self, answer: Answer) -> bytes:
        return answer.raw


class StreamedResponse(ProxyResponse):
    """A streamed answer, passed on as it comes."""

    def __init__(self, queue: AdmissionQueue, asked: ProxyRequest) -> None:
        super().__init__(queue, asked)
        self._begun = False
        self._filter: UsageFilter | None = None

    async def _answer(self, send: Send) -> None:
        async def begin(
            provider: LLMProvider,
        ) -> tuple[bytes, AsyncGenerator[bytes, None]]:
            self._asked.check()
            # Up to the first bytes, a failure can still be answered with a status of its own.
            chunks = provider.raw_stream(self._asked.route.engine_path, self._body(provider))
            return await anext(chunks), chunks

        async with self._queue.admit(self._asked.arrived, self._asked.estimate) as ticket:
            first, chunks = await ticket.ask(begin)
            async with aclosing(chunks):
                self._notes["first_bytes_seconds"] = round(
                    time.monotonic() - self._asked.arrived, 4
                )
                await self._pass_on(send, first, chunks, ticket)

    def _body(self, provider: LLMProvider) -> dict[str, Any]:
        """The body; the number of tokens is asked for too, where it can be taken out again."""
        self._filter = None
        body = self._asked.body
        options = body.get("stream_options") or {}
        if (
            not provider.usage_on_request
            or self._asked.route.engine_path != CHAT
            or not isinstance(options, dict)  # the engine's to refuse
            or options.get("include_usage")
        ):
            return body
        self._filter = UsageFilter()
        return {**body, "stream_options": {**options, "include_usage": True}}

    async def _pass_on(
        self, send: Send, first: bytes, chunks: AsyncGenerator[bytes, None], ticket: Ticket
    ) -> None:
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": _SSE})
        outcome = StreamOutcome(self._asked.route.engine_path)
        outcome.feed(first)
        try:
            async with stall_timer() as timer:

                async def give(data: bytes) -> None:
                    if data:
                        timer.begin()
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                        timer.end()

                await give(self._shaped(first))
                async for chunk in chunks:
                    outcome.feed(chunk)
                    await give(self._shaped(chunk))
                await give(self._rest())
        except TimeoutError:
            self._notes["outcome"] = "client_stalled"
            raise ClientDisconnect from None
        except LLMError as error:
            if isinstance(error, StreamInterruptedError):
                ticket.report_broken()
            await self._end(send, error)
            return
        self._count(outcome.tokens)
        if outcome.failed:
            self._notes["outcome"] = "interrupted"
        await send({"type": "http.response.body", "body": b""})

    def _shaped(self, chunk: bytes) -> bytes:
        events = chunk if self._filter is None else self._filter.feed(chunk)
        return without_addresses_in_errors(events) if b'"error"' in events else events

    def _rest(self) -> bytes:
        return b"" if self._filter is None else self._filter.rest()

    async def _end(self, send: Send, error: Exception) -> None:
        if not self._begun:
            await super()._end(send, error)
            return
        # The status is sent; an error event is how OpenAI's clients learn of it.
        problem = APIError.of(error)
        if isinstance(error, LLMError):
            note_failure(self._notes, error)
        self._notes["outcome"] = (
            "interrupted"
            if isinstance(error, StreamInterruptedError | EngineTimeoutError)
            else problem.outcome
        )
        event = (
            f"\n\ndata: {json.dumps(self._asked.route.error_format(problem.error))}\n\n".encode()
        )
        await send({"type": "http.response.body", "body": event})
