"""A test double for an engine, over real sockets so that it can also be faulty on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from llm_provider.api import create_app
from llm_provider.base import LLMProvider

MODEL = "smoke"
ANSWER = "The chain holds: café, 東京, 🚲."
KEY = "key-one-of-the-tests"
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


@dataclass
class Exchange:
    """One request, and the wire its answer goes out on."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: Any, status: int = 200, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.send(
            f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )

    async def begin_stream(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def chunk(self, data: bytes) -> None:
        """One chunk of a streamed answer; an empty one ends it."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


Handler = Callable[[Exchange], Awaitable[None]]


def completion(text: str = ANSWER, finish_reason: str | None = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice]}


def event(text: str | None = None, finish_reason: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"object": "chat.completion.chunk", "choices": [choice], **more}
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def stream_of(text: str = ANSWER) -> bytes:
    """A whole streamed answer's bytes: a chunk a word, a usage, the end."""
    words = [f"{word} " for word in text.split()]
    usage = {"choices": [], "usage": {"completion_tokens": len(words)}}
    return b"".join(
        [
            *(event(word) for word in words),
            event(finish_reason="stop"),
            f"data: {json.dumps(usage)}\n\n".encode(),
            b"data: [DONE]\n\n",
        ]
    )


class FakeEngine:
    """Answers as llama-server and Ollama do; `on` replaces an answer. One request a connection."""

    def __init__(self) -> None:
        self.requests: list[Exchange] = []
        self.loaded: list[str] = []
        self.running = 0
        self.most_running = 0
        self.left = asyncio.Event()
        self.port = 0
        self._handlers: dict[str, Handler] = {
            "/health": lambda x: x.answer({"status": "ok"}),
            "/api/version": lambda x: x.answer({"version": "0.34.0"}),
            "/v1/models": lambda x: x.answer({"object": "list", "data": [{"id": MODEL}]}),
            "/api/ps": lambda x: x.answer({"models": [{"name": name} for name in self.loaded]}),
            "/api/generate": self._generate,
            "/v1/chat/completions": self.chat,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, path: str, handler: Handler) -> None:
        self._handlers[path] = handler

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    async def chat(self, exchange: Exchange) -> None:
        if not exchange.body["stream"]:
            await exchange.answer(completion())
            return
        await exchange.begin_stream()
        whole = stream_of()
        for start in range(0, len(whole), 7):  # cuts lines and characters anywhere
            await exchange.chunk(whole[start : start + 7])
            if start % 70 == 0:
                await asyncio.sleep(0.001)
        await exchange.chunk(b"")

    async def _generate(self, exchange: Exchange) -> None:
        self.loaded = [f"{exchange.body['model']}:latest"]
        await exchange.answer({"done": True, "done_reason": "load"})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split()
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            body = json.loads(raw) if raw else None
            exchange = Exchange(method, path, headers, body, writer)
            self.requests.append(exchange)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            work = asyncio.ensure_future(self._handlers[path](exchange))
            gone = asyncio.ensure_future(reader.read())
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    self.left.set()
            finally:
                self.running -= 1
                work.cancel()
                gone.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[FakeEngine]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serve_api(provider: LLMProvider, keys: Path, **environ: str) -> AsyncIterator[str]:
    """The chat API itself, under uvicorn on a loopback port; yields its URL."""
    settings = {"CHAT_API_KEYS_FILE": str(keys), "CTX_SIZE": "4096", "PARALLEL": "2"}
    app = create_app(settings | environ, provider=provider)
    # Its parts, since as a whole it takes over the test run's signals and takes its time to stop.
    config = uvicorn.Config(app, log_config=None, access_log=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for one in server.servers:
                one.close()
            for task in server.server_state.tasks:
                task.cancel()
            await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
            await server.lifespan.shutdown()
