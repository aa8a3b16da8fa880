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

import httpx
import pytest

from llm_provider.providers.base import LLMProvider
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.application import create_app
from llm_provider.server.uvicorn_server import serving

MODEL = "smoke"
ANSWER = "The chain holds: café, 東京, 🚲."
WORDS = [f"{word} " for word in ANSWER.split()]
PROMPT_TOKENS = 7
CONTEXT = 2048
SLOTS = 3
KEY = "key-one-of-the-tests"
AUTH = {"Authorization": f"Bearer {KEY}"}
METRICS = b"# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 7\n"
METRICS_TYPE = "text/plain; version=0.0.4"
DONE = b"data: [DONE]\n\n"
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

    async def stream(self, *chunks: bytes) -> None:
        """A whole streamed answer, properly ended on the wire."""
        await self.begin_stream()
        for data in (*chunks, b""):
            await self.chunk(data)


Handler = Callable[[Exchange], Awaitable[None]]


def usage_of(text: str) -> dict[str, int]:
    """A word is a token."""
    written = len(text.split())
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": written,
        "total_tokens": PROMPT_TOKENS + written,
    }


def completion(text: str = ANSWER, finish_reason: str | None = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage_of(text),
    }


def _line(choices: list[dict[str, Any]], **more: Any) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": choices,
        **more,
    }
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def delta_event(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    return _line([{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more)


def event(text: str | None = None, finish_reason: str | None = None, **more: Any) -> bytes:
    return delta_event({} if text is None else {"content": text}, finish_reason, **more)


def error_event(message: str) -> bytes:
    error = {"code": 500, "message": message, "type": "server_error"}
    return f"data: {json.dumps({'error': error})}\n\n".encode()


def stream_of(text: str = ANSWER, *, kind: str = "llamacpp", usage: bool = False) -> bytes:
    """A whole streamed answer's bytes, an event a word; `usage`: as where it was asked for.

    llama-server tells its numbers of tokens unasked too, as `timings` in its last event.
    """
    words = [f"{word} " for word in text.split()]
    counted: dict[str, Any] = {}
    if kind == "llamacpp":
        counted["timings"] = {"prompt_n": PROMPT_TOKENS, "cache_n": 0, "predicted_n": len(words)}
    closing = [event(finish_reason="stop", **({} if usage else counted))]
    if usage:
        closing.append(_line([], usage=usage_of(text), **counted))
    first = {"role": "assistant", "content": None if kind == "llamacpp" else ""}
    return b"".join([delta_event(first), *(event(word) for word in words), *closing, DONE])


class FakeEngine:
    """Answers as the engine `kind` does; `on` replaces an answer. One request a connection."""

    def __init__(self, kind: str = "llamacpp") -> None:
        self.kind = kind
        self.requests: list[Exchange] = []
        self.connections = 0
        self.hangs_up = False  # on all who connect
        self.loaded: list[str] = []  # Ollama's
        self.in_vram = 1000  # bytes of a loaded model's 1000, by Ollama's account
        self.loading = False  # llama-server's
        self.running = 0  # requests for answers
        self.most_running = 0
        self.left = asyncio.Event()
        self.port = 0
        self._defects: list[Exception] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Handler] = {
            "/v1/models": self._models,
            CHAT: self.chat,
            COMPLETIONS: self._completions,
            EMBEDDINGS: self._embeddings,
            RESPONSES: self._responses,
        }
        if kind == "ollama":
            self._handlers |= {
                "/api/version": lambda x: x.answer({"version": "0.34.0"}),
                "/api/ps": self._ps,
                "/api/generate": self._generate,
            }
        else:
            self._handlers["/health"] = self._health
        if kind == "llamacpp":
            self._handlers["/props"] = self._props
        if kind != "ollama":
            self._handlers["/metrics"] = lambda x: x.answer(METRICS, kind=METRICS_TYPE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, path: str, handler: Handler) -> None:
        self._handlers[path] = handler

    def without(self, path: str) -> None:
        del self._handlers[path]

    def paused(self, path: str = CHAT) -> asyncio.Event:
        """Have requests to `path` wait, from now on, until the event returned is set."""
        goes_on = asyncio.Event()
        answer = self._handlers[path]

        async def wait(exchange: Exchange) -> None:
            await goes_on.wait()
            await answer(exchange)

        self.on(path, wait)
        return goes_on

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    @property
    def posts(self) -> list[Exchange]:
        return [request for request in self.requests if request.method == "POST"]

    @property
    def asked(self) -> list[Any]:
        """The bodies of the chat requests that came, in order."""
        return [request.body for request in self.posts if request.path == CHAT]

    async def chat(self, exchange: Exchange) -> None:
        if not exchange.body["stream"]:
            await exchange.answer(completion())
            return
        await exchange.begin_stream()
        options = exchange.body.get("stream_options")
        usage = isinstance(options, dict) and bool(options.get("include_usage"))
        whole = stream_of(kind=self.kind, usage=usage)
        for start in range(0, len(whole), 7):  # cuts lines and characters anywhere
            await exchange.chunk(whole[start : start + 7])
            if start % 70 == 0:
                await asyncio.sleep(0.001)
        await exchange.chunk(b"")

    async def _health(self, exchange: Exchange) -> None:
        await exchange.answer(b"" if self.kind == "vllm" else {"status": "ok"})

    async def _props(self, exchange: Exchange) -> None:
        settings = {"n_ctx": CONTEXT, "params": {"temperature": 0.8}}
        await exchange.answer({"default_generation_settings": settings, "total_slots": SLOTS})

    async def _models(self, exchange: Exchange) -> None:
        entry: dict[str, Any] = {"id": MODEL, "object": "model"}
        if self.kind == "ollama":
            entry["id"] = f"{MODEL}:latest"
        if self.kind == "vllm":
            entry["max_model_len"] = CONTEXT
        await exchange.answer({"object": "list", "data": [entry]})

    async def _ps(self, exchange: Exchange) -> None:
        entries = [
            {"name": name, "size": 1000, "size_vram": self.in_vram, "context_length": CONTEXT}
            for name in self.loaded
        ]
        await exchange.answer({"models": entries})

    async def _generate(self, exchange: Exchange) -> None:
        self.loaded = [f"{exchange.body['model']}:latest"]
        await exchange.answer({"done": True, "done_reason": "load"})

    async def _completions(self, exchange: Exchange) -> None:
        choice = {"index": 0, "text": ANSWER, "finish_reason": "stop"}
        whole = {"id": "cmpl-1", "object": "text_completion", "choices": [choice], "created": 1}
        whole |= {"model": MODEL, "usage": usage_of(ANSWER)}
        if exchange.body["stream"]:
            await exchange.stream(f"data: {json.dumps(whole)}\n\n".encode(), DONE)
        else:
            await exchange.answer(whole)

    async def _embeddings(self, exchange: Exchange) -> None:
        words = "This server does not support embeddings. Start it with `--embeddings`"
        error = {"code": 501, "message": words, "type": "not_supported_error"}
        await exchange.answer({"error": error}, 501)

    async def _responses(self, exchange: Exchange) -> None:
        content = [{"type": "output_text", "text": ANSWER, "annotations": []}]
        message = {"id": "msg-1", "type": "message", "role": "assistant", "status": "completed"}
        response = {
            "id": "resp-1",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "error": None,
            "model": MODEL,
            "output": [message | {"content": content}],
            "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": len(WORDS)},
        }
        if not exchange.body["stream"]:
            await exchange.answer(response)
            return
        deltas: list[dict[str, Any]]
        deltas = [{"type": "response.output_text.delta", "delta": word} for word in WORDS]
        completed = {"type": "response.completed", "response": response}
        # No [DONE]: the last event says by its name that it is.
        await exchange.stream(
            *(
                f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode()
                for one in (*deltas, completed)
            )
        )

    async def _unknown(self, exchange: Exchange) -> None:
        match self.kind:
            case "ollama":
                await exchange.answer(b"404 page not found", 404, "text/plain")
            case "vllm":
                await exchange.answer({"detail": "Not Found"}, 404)
            case _:
                error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
                await exchange.answer({"error": error}, 404)

    async def _handle(self, exchange: Exchange) -> None:
        if self.loading:
            error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
            await exchange.answer({"error": error}, 503)
        else:
            await self._handlers.get(exchange.path, self._unknown)(exchange)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if not self.hangs_up:
                await self._exchange(reader, writer)
        except asyncio.CancelledError:
            pass  # this double's own end; raised, the loop would log it
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        except Exception as error:
            self._defects.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head[1:] if line)
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        is_json = headers.get("content-type", "application/json") == "application/json"
        body = json.loads(raw) if raw and is_json else raw or None
        exchange = Exchange(method, path, headers, body, writer)
        self.requests.append(exchange)
        works = method == "POST"  # not a mere question about its state
        self.running += works
        self.most_running = max(self.most_running, self.running)
        work = asyncio.ensure_future(self._handle(exchange))
        gone = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                self.left.set()
        finally:
            self.running -= works
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[FakeEngine]:
        """Serve on `port`; a defect of the double itself, or of a test's handler, is raised."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._defects:
            raise self._defects[0]


def error_of(response: httpx.Response, *figures: str) -> dict[str, Any]:
    """The error, of which the shape is checked: OpenAI's, and beside it only these figures."""
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code", *figures}
    assert error["message"]
    assert error["type"]
    return error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(condition: Callable[[], bool], what: str = "what was waited for") -> None:
    """Wait for `condition`, for half a minute at most."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"{what} did not come about")


@asynccontextmanager
async def serve_api(provider: LLMProvider | None, keys: Path, **environ: str) -> AsyncIterator[str]:
    """The chat API itself, under uvicorn on a loopback port; yields its URL.

    Without `provider`, `environ` describes it.
    """
    settings = {"CHAT_API_KEYS_FILE": str(keys), "CTX_SIZE": "4096", "PARALLEL": "2"}
    app = create_app(settings | environ, provider=provider)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(app, listener) as url:
            yield url
