"""Faults of an engine's connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from llm_provider import EngineTimeoutError, LlamaCpp, LLMError

from ..fake import Exchange, Handler, completion

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


PATIENCE = 0.6
"""Seconds of silence allowed where there is silence: enough for what comes, on a busy machine."""


LOST = 20.0
"""Seconds after which a request counts as lost in these tests: far more than any may take."""


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Fault:
    """What the engine does, and what comes of it; `begun`: after a part of the answer."""

    name: str
    handler: Handler
    kind: type[LLMError]
    words: str
    begun: bool = False

    @property
    def status(self) -> int:
        return 504 if self.kind is EngineTimeoutError else 502

    @property
    def code(self) -> str:
        return "engine_timeout" if self.kind is EngineTimeoutError else "engine_error"


def sends(*parts: bytes, then: Callable[[Exchange], Awaitable[None]] | None = None) -> Handler:
    """Send these bytes, whatever they are; then close the connection, or do `then`."""

    async def handler(exchange: Exchange) -> None:
        for part in parts:
            await exchange.send(part)
        if then is not None:
            await then(exchange)

    return handler


def headed(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


JSON = json.dumps(completion()).encode()


EVENTS = "Content-Type: text/event-stream"


async def text_of(llm: LlamaCpp, stream: bool) -> str:
    async with asyncio.timeout(LOST):
        if not stream:
            return await llm.generate("Hello")
        return "".join([piece async for piece in llm.generate_stream("Hello")])
