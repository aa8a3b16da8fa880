"""A server of its own, on a real socket, that answers as a chat API does, or as a test says."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

KEY = "key-one-of-the-tests"
MODEL = "smoke"
ANSWER = "All is well: café, 東京, 🚲."
DONE = b"data: [DONE]\n\n"
READY = {
    "ready": True,
    "provider": "llamacpp",
    "model": MODEL,
    "context_size": 4096,
    "parallel": 4,
    "gpu_share": None,
}

Reply = Callable[[], Response]
Change = Mapping[str, Reply]


def sse(*parts: bytes) -> Reply:
    return lambda: Response(b"".join(parts), media_type="text/event-stream")


def paced(*parts: bytes, seconds: float = 0.005) -> Reply:
    """A stream whose parts come one after the other."""

    async def send() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
            await asyncio.sleep(seconds)

    return lambda: StreamingResponse(send(), media_type="text/event-stream")


def reply(body: Any, status: int = 200) -> Reply:
    return lambda: JSONResponse(body, status)


def refusal(message: str, status: int, code: str | None = None) -> Reply:
    return reply({"error": {"message": message, "code": code}}, status)


def in_turn(*replies: Reply) -> Reply:
    """One reply after the other, the last one for ever."""
    waiting = list(replies)
    return lambda: (waiting.pop(0) if len(waiting) > 1 else waiting[0])()


def whole(
    text: str | None = ANSWER, finish_reason: str | None = "stop", **more: Any
) -> dict[str, Any]:
    """A chat.completion; `more` goes into its message, save `model`."""
    model = more.pop("model", MODEL)
    message = {"role": "assistant", "content": text, **more}
    return {
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": len((text or "").split())},
    }


def event(
    delta: Mapping[str, Any], finish_reason: str | None = None, model: str | None = MODEL
) -> bytes:
    """One chat.completion.chunk."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
    return f"data: {json.dumps({'model': model, 'choices': [choice]})}\n\n".encode()


def words(text: str = ANSWER, **more: Any) -> list[bytes]:
    """An event for each word; `more` as `event` takes it."""
    return [event({"content": f"{word} "}, **more) for word in text.split()]


def streamed(text: str = ANSWER, model: str | None = MODEL) -> list[bytes]:
    """The parts of a whole streamed answer."""
    usage = {"choices": [], "usage": {"completion_tokens": len(text.split())}}
    return [
        event({"role": "assistant", "content": None}, model=model),
        *words(text, model=model),
        event({}, "stop", model=model),
        f"data: {json.dumps(usage)}\n\n".encode(),
        DONE,
    ]


@dataclass
class Asked:
    """One request that came."""

    path: str
    authorization: str | None
    body: Any


class Scripted:
    """Answers by name, which a test may replace: health, ready, models, chat, stream; `stranger`
    for a request without a key, `wrong` for one with another key than KEY."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._answers: dict[str, Reply] = {}
        self.reset()

    def reset(self, change: Change | None = None) -> None:
        """Answer as a chat API does, save where `change` says otherwise."""
        self.asked.clear()
        stranger = refusal("A key is needed.", 401)
        self._answers = {
            "health": reply({"status": "ok", "version": "0.1.0"}),
            "stranger": stranger,
            "wrong": stranger,
            "ready": reply(READY),
            "models": reply({"data": [{"id": MODEL}, {"id": "an-alias"}]}),
            "chat": reply(whole()),
            "stream": paced(*streamed()),
            **(change or {}),
        }

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        authorization = request.headers.get("Authorization")
        raw = await request.body()
        body: Any = json.loads(raw) if raw else None
        self.asked.append(Asked(path, authorization, body))
        name = path.removeprefix("/v1").removeprefix("/")
        if path != "/health" and authorization != f"Bearer {KEY}":
            name = "wrong" if authorization else "stranger"
        elif path == "/v1/chat/completions":
            name = "stream" if body["stream"] else "chat"
        return self._answers.get(name, refusal("File Not Found", 404))()


@contextmanager
def serving(scripted: Scripted, pair: Path | None = None) -> Iterator[Scripted]:
    """Serve it in a thread, so that commands and examples may run loops of their own.

    `pair`: a file with a certificate and its key, for HTTPS.
    """
    app = FastAPI()
    app.add_api_route("/{path:path}", scripted.answer, methods=["GET", "POST"], response_model=None)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ssl_certfile=pair
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scheme = "https" if pair else "http"
        scripted.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert server.started, "the scripted server did not start"
        try:
            yield scripted
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
