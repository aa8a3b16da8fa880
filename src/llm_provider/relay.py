"""An engine's answer on its way to a client: whole, or byte for byte as it comes."""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_provider.answers import APIError
from llm_provider.base import CHAT, Answer, LLMProvider, choice_of, text_of
from llm_provider.errors import EngineTimeoutError, LLMError, StreamInterruptedError
from llm_provider.gate import Gate, Need, Turn
from llm_provider.sse import EventParser, WithoutUsage, error_in, tokens_in, tokens_of

STALL_SECONDS = 60.0
"""How long a client may take nothing of a stream before it counts as gone: it blocks a slot."""
# Where the last events of a stream are, which tell of its tokens.
_TAIL = 4096
_SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
_JSON = b"application/json"
_CUT_OFF = APIError(
    503,
    "The chat API stopped before the answer was complete.",
    type="server_error",
    code="stopped",
)


@dataclass(frozen=True)
class Question:
    """What an engine is asked: `body` at `path`.

    `arrived` is when the request came (time.monotonic); `need` is what it asks of the engine's
    context; `notes` takes what the log is to tell; `check` raises APIError where the engine of the
    moment does not serve the model that is asked for: it may be another than when the request came.
    """

    path: str
    body: dict[str, Any]
    arrived: float
    need: Need
    notes: dict[str, object]
    check: Callable[[], None]


class Relay(Response):
    """A response that is the engine's own."""

    def __init__(self, gate: Gate, question: Question) -> None:
        super().__init__()
        self._gate = gate
        self._question = question
        self._notes = question.notes

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
            if not self._gate.stopping:
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


class Whole(Relay):
    """An answer in one piece."""

    async def _answer(self, send: Send) -> None:
        async def ask(provider: LLMProvider) -> Answer:
            self._question.check()
            return await provider.send(self._question.path, self._question.body)

        async with self._gate.turn(self._question.arrived, self._question.need) as turn:
            answer = await turn.ask(ask)
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


class _Patience:
    """A limit to how long a client may let one send wait: one timer for all of them.

    A timer for each would cost more than the sending.
    """

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._arm(STALL_SECONDS)

    def begin(self) -> None:
        self._since = self._loop.time()

    def end(self) -> None:
        self._since = None

    def close(self) -> None:
        self._timer.cancel()

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        waited = 0.0 if self._since is None else now - self._since
        if waited >= STALL_SECONDS:
            self._limit.reschedule(now)
        else:
            self._arm(STALL_SECONDS - waited)


@asynccontextmanager
async def _patience() -> AsyncGenerator[_Patience, None]:
    """Raises TimeoutError once a send has waited for STALL_SECONDS."""
    async with asyncio.timeout(None) as limit:
        patience = _Patience(limit)
        try:
            yield patience
        finally:
            patience.close()


class Stream(Relay):
    """A streamed answer, passed on as it comes."""

    def __init__(self, gate: Gate, question: Question) -> None:
        super().__init__(gate, question)
        self._begun = False
        self._filter: WithoutUsage | None = None

    async def _answer(self, send: Send) -> None:
        async def begin(
            provider: LLMProvider,
        ) -> tuple[bytes, AsyncGenerator[bytes, None]]:
            self._question.check()
            # Up to the first bytes, a failure can still be answered with a status of its own.
            chunks = provider.raw_stream(self._question.path, self._asked(provider))
            return await anext(chunks), chunks

        async with self._gate.turn(self._question.arrived, self._question.need) as turn:
            first, chunks = await turn.ask(begin)
            async with aclosing(chunks):
                self._notes["first_bytes_seconds"] = round(
                    time.monotonic() - self._question.arrived, 4
                )
                await self._pass_on(send, first, chunks, turn)

    def _asked(self, provider: LLMProvider) -> dict[str, Any]:
        """The body; the number of tokens is asked for too, where it can be taken out again."""
        self._filter = None
        body = self._question.body
        options = body.get("stream_options") or {}
        if (
            not provider.usage_on_request
            or self._question.path != CHAT
            or not isinstance(options, dict)  # the engine's to refuse
            or options.get("include_usage")
        ):
            return body
        self._filter = WithoutUsage()
        return {**body, "stream_options": {**options, "include_usage": True}}

    async def _pass_on(
        self, send: Send, first: bytes, chunks: AsyncGenerator[bytes, None], turn: Turn
    ) -> None:
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": _SSE})
        tail = first
        try:
            async with _patience() as patience:

                async def give(data: bytes) -> None:
                    if data:
                        patience.begin()
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                        patience.end()

                await give(self._shaped(first))
                async for chunk in chunks:
                    tail = (tail + chunk)[-_TAIL:]
                    await give(self._shaped(chunk))
                await give(self._rest())
        except TimeoutError:
            self._notes["outcome"] = "client_stalled"
            raise ClientDisconnect from None
        except LLMError as error:
            if isinstance(error, StreamInterruptedError):
                turn.broke()
            await self._end(send, error)
            return
        self._count(tokens_in(tail))
        if error_in(tail):
            self._notes["outcome"] = "interrupted"
        await send({"type": "http.response.body", "body": b""})

    def _shaped(self, chunk: bytes) -> bytes:
        return chunk if self._filter is None else self._filter.feed(chunk)

    def _rest(self) -> bytes:
        return b"" if self._filter is None else self._filter.rest()

    async def _end(self, send: Send, error: Exception) -> None:
        if not self._begun:
            await super()._end(send, error)
            return
        # The status is sent; an error event is how OpenAI's clients learn of it.
        problem = APIError.of(error)
        self._notes["outcome"] = (
            "interrupted"
            if isinstance(error, StreamInterruptedError | EngineTimeoutError)
            else problem.outcome
        )
        event = f"\n\ndata: {json.dumps({'error': problem.error})}\n\n".encode()
        await send({"type": "http.response.body", "body": event})


class Message(Whole):
    """POST /api/chat's answer: the text, and what it came with."""

    def _shaped(self, answer: Answer) -> bytes:
        choice = choice_of(answer.data)
        shaped = {
            "answer": text_of(choice.get("message")).strip(),
            "model": answer.data.get("model"),
            "finish_reason": choice.get("finish_reason"),
            "usage": answer.data.get("usage"),
        }
        return json.dumps(shaped).encode()


class MessageStream(Stream):
    """POST /api/chat's answer as events: {"delta": "..."} for each piece of text, then [DONE]."""

    def __init__(self, gate: Gate, question: Question) -> None:
        super().__init__(gate, question)
        self._parser = EventParser()
        self._told = False

    def _shaped(self, chunk: bytes) -> bytes:
        out = bytearray()
        for event in self._parser.objects(chunk):
            text = text_of(choice_of(event).get("delta")) if event.get("choices") else ""
            # A model whose first token begins a word comes out with a leading space.
            text = text if self._told else text.lstrip()
            if text:
                self._told = True
                out += f"data: {json.dumps({'delta': text})}\n\n".encode()
        return bytes(out)

    def _rest(self) -> bytes:
        return b"data: [DONE]\n\n"
