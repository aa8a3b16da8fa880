"""The chat API: one OpenAI-compatible address before whichever engine this host runs.

`python -m llm_provider.api` serves it; `create_app()` makes it. Settings come from the
environment: see `Settings`, and `llm_provider.selection` for the engine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_provider import API_PORT, __version__, logs
from llm_provider.base import LLMProvider
from llm_provider.errors import (
    ConfigurationError,
    LLMError,
    Loading,
    NotReachable,
    Rejected,
    TimedOut,
)
from llm_provider.gate import Engine, QueueFull, Slots
from llm_provider.keys import KeyFile
from llm_provider.selection import count, get_llm_provider, number

Result = TypeVar("Result")

DEFAULT_MODEL = "default"
"""The name by which any client may ask for the model that this host serves."""
MAX_BODY_BYTES = 4 * 1024 * 1024
# A larger body is read to here before it is refused: a client whose connection breaks while it
# sends learns nothing.
_DRAIN_BYTES = 8 * MAX_BODY_BYTES
MAX_QUEUE = 64
GRACEFUL_SECONDS = 10
_RETRY = {"Retry-After": "5"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = logging.getLogger("llm_provider.api")


@dataclass(frozen=True)
class Settings:
    """What the chat API needs to know beside its engine.

    From the environment: CHAT_API_KEYS_FILE (required), CTX_SIZE (tokens of one conversation,
    for /ready's report; null where not set), PARALLEL (requests that the engine runs at once, 1),
    LLM_HOLD_SECONDS (how long a request waits for an engine that is not ready, 60),
    LLM_MODEL_ALIASES (other names of the served model, separated by commas).
    """

    keys: KeyFile
    context_size: int | None
    parallel: int
    hold_seconds: float
    aliases: tuple[str, ...]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; raises ConfigurationError naming what is missing or wrong."""
        path = environ.get("CHAT_API_KEYS_FILE")
        if not path:
            raise ConfigurationError(
                "CHAT_API_KEYS_FILE is not set; it must name a file with one API key per line."
            )
        return cls(
            keys=KeyFile(Path(path)),
            context_size=count(environ, "CTX_SIZE"),
            parallel=count(environ, "PARALLEL") or 1,
            hold_seconds=number(environ, "LLM_HOLD_SECONDS", 60),
            aliases=tuple(
                name
                for part in environ.get("LLM_MODEL_ALIASES", "").split(",")
                if (name := part.strip())
            ),
        )


class APIError(Exception):
    """An answer other than success, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.error = {"message": message, "type": type, "param": param, "code": code}

    @classmethod
    def of(cls, error: LLMError) -> APIError:
        """Say an engine's failure as ours: the client's own fault as such, others as 502 to 504."""
        if isinstance(error, Loading | NotReachable):
            return cls(
                503, str(error), type="server_error", code="engine_not_ready", headers=_RETRY
            )
        if isinstance(error, TimedOut):
            return cls(504, str(error), type="server_error", code="engine_timeout")
        if isinstance(error, Rejected):
            if error.status in (400, 413, 422):
                param, code = error.error.get("param"), error.error.get("code")
                return cls(
                    413 if error.status == 413 else 400,
                    error.words,
                    param=param if isinstance(param, str) else None,
                    code=code if isinstance(code, str) else None,
                )
            if error.status in (429, 503):
                return cls(503, str(error), type="server_error", code="engine_busy", headers=_RETRY)
        return cls(502, str(error), type="server_error", code="engine_error")

    def response(self) -> JSONResponse:
        return JSONResponse({"error": self.error}, self.status, self.headers)


class Edge:
    """The outermost layer: request id, key, one log line a request, no error unanswered."""

    def __init__(self, app: ASGIApp, keys: KeyFile) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        notes = scope.setdefault("state", {})["notes"] = {}
        open_to_all = scope["path"] == "/health"
        try:
            if not open_to_all and not self._keys.accepts(headers.get(b"authorization")):
                refusal = APIError(
                    401,
                    "A valid API key is needed: send it as 'Authorization: Bearer KEY'.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refusal.response()(scope, receive, send_named)
            else:
                await self._app(scope, receive, send_named)
        except ClientDisconnect:
            notes["outcome"] = "client left"
        except Exception:
            _log.exception("defect", extra={"request_id": request_id})
            if status:
                raise  # the answer has begun: only a broken connection can tell now
            defect = APIError(
                500,
                f"The chat API failed; its log tells why under request id {request_id}.",
                type="server_error",
            )
            await defect.response()(scope, receive, send_named)
        finally:
            if not open_to_all or status != 200:
                # The path as we know it: what clients make up may hold anything.
                route = scope.get("route")
                _log.info(
                    "request",
                    extra={
                        "request_id": request_id,
                        "method": scope["method"],
                        "path": getattr(route, "path", None),
                        "status": status or None,
                        "seconds": round(time.monotonic() - started, 4),
                        "client": (scope.get("client") or [None])[0],
                        **notes,
                    },
                )


class EngineStream(StreamingResponse):
    """An engine's stream, passed on byte for byte; `held` is let go of however this ends."""

    def __init__(
        self,
        first: bytes,
        rest: AsyncGenerator[bytes, None],
        held: AsyncExitStack,
        notes: dict[str, object],
    ) -> None:
        super().__init__(
            self._chunks(first, rest, notes),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
        self._held = held
        self._notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._notes["outcome"] = "client left"
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._held.aclose()

    async def _chunks(
        self, first: bytes, rest: AsyncGenerator[bytes, None], notes: dict[str, object]
    ) -> AsyncIterator[bytes]:
        yield first
        try:
            async for chunk in rest:
                yield chunk
            notes["outcome"] = "complete"
        except LLMError as error:
            # The status is sent; an error event is how OpenAI's clients learn of it.
            notes["outcome"] = type(error).__name__
            event = json.dumps({"error": APIError.of(error).error})
            yield f"\n\ndata: {event}\n\n".encode()


class ChatAPI:
    """The routes' handlers, and the state that they share."""

    def __init__(self, provider: LLMProvider, settings: Settings) -> None:
        self.engine = Engine(provider, settings.hold_seconds)
        self._settings = settings
        self._slots = Slots(settings.parallel, MAX_QUEUE)
        self._model = provider.model
        self._started = int(time.time())

    async def health(self) -> dict[str, str]:
        """Alive: this process answers. Nothing is said of the engine."""
        return {"status": "ok", "version": __version__}

    async def ready(self) -> Response:
        """Whether the engine would answer a chat request now, asked of it now."""
        ready = await self.engine.probe()
        report = {
            "ready": ready,
            "provider": self.engine.provider.name,
            "model": self._model,
            "context_size": self._settings.context_size,
            "parallel": self._settings.parallel,
        }
        if ready:
            return JSONResponse(report)
        problem = APIError.of(Loading(self.engine.waiting_for))
        return JSONResponse(report | {"error": problem.error}, 503, problem.headers)

    async def models(self) -> dict[str, object]:
        """The one model served, in OpenAI's shape."""
        entry = {
            "id": self._model,
            "object": "model",
            "created": self._started,
            "owned_by": "edge-llm",
        }
        return {"object": "list", "data": [entry]}

    async def chat_completions(self, request: Request) -> Response:
        """OpenAI's chat completion, streamed or not, by this host's engine."""
        arrived = time.monotonic()
        body = _parse(await _read(request))
        self._check_model(body.get("model"))
        stream = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise APIError(400, "'stream' must be true or false.", param="stream")
        answer = self._stream if stream else self._whole
        return await _while_connected(request, answer(body, arrived, request.state.notes))

    def _check_model(self, name: object) -> None:
        if name is not None and not isinstance(name, str):
            raise APIError(400, "'model' must be a string.", param="model")
        served = (self._model, *self._settings.aliases)
        if name and name != DEFAULT_MODEL and name not in served:
            raise APIError(
                404,
                f"The model {name!r} is not served here; served: {', '.join(served)}.",
                param="model",
                code="model_not_found",
            )

    async def _whole(
        self, body: dict[str, Any], arrived: float, notes: dict[str, object]
    ) -> Response:
        async with self._slots.take():
            answer = await self.engine.run(arrived, lambda: self.engine.provider.chat(body))
            return JSONResponse(answer)

    async def _stream(
        self, body: dict[str, Any], arrived: float, notes: dict[str, object]
    ) -> Response:
        async def begin() -> tuple[bytes, AsyncGenerator[bytes, None]]:
            # Up to the first bytes, a failure can still be answered with a status of its own.
            chunks = self.engine.provider.stream(body)
            return await anext(chunks), chunks

        async with AsyncExitStack() as held:
            await held.enter_async_context(self._slots.take())
            first, chunks = await self.engine.run(arrived, begin)
            held.push_async_callback(chunks.aclose)
            notes["first_bytes_seconds"] = round(time.monotonic() - arrived, 4)
            return EngineStream(first, chunks, held.pop_all(), notes)


def create_app(
    environ: Mapping[str, str] = os.environ, *, provider: LLMProvider | None = None
) -> FastAPI:
    """Return the chat API as an ASGI application.

    `provider` replaces the one that `environ` describes. Raises ConfigurationError, with a
    sentence, when a setting is missing or wrong.
    """
    settings = Settings.from_environ(environ)
    engine = provider or get_llm_provider(environ=environ)

    api = ChatAPI(engine, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine:
            watch = asyncio.create_task(api.engine.watch())
            try:
                yield
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    app = FastAPI(
        title="edge-llm chat API",
        version=__version__,
        lifespan=lifespan,
        # They would load scripts from elsewhere; /openapi.json stays, behind the key.
        docs_url=None,
        redoc_url=None,
        # It would record exceptions with their text, and send it wherever the environment says.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.get("/health")(api.health)
    app.get("/ready")(api.ready)
    app.get("/v1/models")(api.models)
    app.post("/v1/chat/completions")(api.chat_completions)
    app.add_middleware(Edge, keys=settings.keys)
    app.add_exception_handler(APIError, _answer_error)
    app.add_exception_handler(LLMError, _answer_error)
    app.add_exception_handler(QueueFull, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer any foreseen failure in OpenAI's shape."""
    match error:
        case APIError():
            problem = error
        case LLMError():
            # Its kind alone is logged: an engine's words may quote the request.
            request.state.notes["outcome"] = type(error).__name__
            problem = APIError.of(error)
        case QueueFull():
            problem = APIError(
                429,
                f"{MAX_QUEUE} requests wait for the engine already; try again later.",
                type="rate_limit_error",
                code="queue_full",
                headers=_RETRY,
            )
        case HTTPException():
            problem = APIError(
                error.status_code,
                f"{request.method} {request.url.path}: {error.detail}.",
                headers=error.headers,
            )
        case _:
            raise error
    return problem.response()


async def _read(request: Request) -> bytes:
    """Return the body. Raises APIError 413 above MAX_BODY_BYTES."""
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        elif size > _DRAIN_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise APIError(
            413,
            f"The body is larger than {MAX_BODY_BYTES} bytes, the most that is accepted.",
            code="body_too_large",
        )
    return b"".join(parts)


def _parse(raw: bytes) -> dict[str, Any]:
    """Return a chat body. Raises APIError 400 for what is none, or holds what JSON cannot."""

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is no number of JSON")
        return value

    try:
        body = json.loads(raw, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise APIError(400, "The body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise APIError(400, "'messages' must be a list of at least one.", param="messages")
    return body


async def _while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` does, or cancel it and raise ClientDisconnect if the client leaves."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(work)
    left = asyncio.create_task(leave())
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


def main(argv: list[str] | None = None) -> int:
    """Serve the chat API until told to stop (SIGTERM, SIGINT). Exit status 2: a wrong setting."""
    parser = argparse.ArgumentParser(prog="python -m llm_provider.api", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - it serves the network
    parser.add_argument("--port", type=int, default=API_PORT)
    arguments = parser.parse_args(argv)
    logs.configure()
    try:
        app = create_app()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than clients keep idle connections, so that they close them, between requests.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
