"""The chat API: one OpenAI-compatible address before whichever engine this host runs.

`python -m llm_provider.api` serves it; `create_app()` makes it. Settings come from the
environment: see `Settings`, `llm_provider.selection` for the engine's, and `llm_provider.target`
for changing the engine while it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_provider import API_PORT, ENGINE_PORT, __version__, logs, schema
from llm_provider.answers import FORESEEN, APIError, answer_error
from llm_provider.base import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    LLMProvider,
    one_message,
)
from llm_provider.edge import OPEN, Edge
from llm_provider.errors import ConfigurationError, EngineLoadingError
from llm_provider.gate import Gate, Need, Stopping
from llm_provider.keys import KeyFile
from llm_provider.listeners import Listeners, from_door
from llm_provider.metrics import CONTENT_TYPE, Metrics
from llm_provider.passage import Passage
from llm_provider.relay import Message, MessageStream, Question, Stream, Whole
from llm_provider.selection import get_llm_provider, number
from llm_provider.target import HELD, Target

DEFAULT_MODEL = "default"
"""The name by which any client may ask for the model that this host serves."""
MAX_BODY_BYTES = 4 * 1024 * 1024
# A larger body is read to here before it is refused: a client whose connection breaks while it
# sends learns nothing.
_DRAIN_BYTES = 8 * MAX_BODY_BYTES
_MOST_DIGITS = 1000
MESSAGE = "/api/chat"
LINGER_SECONDS = 0.25
"""How long a retiring process leaves an idle connection open: a request may be on its way."""
_LOOK_SECONDS = 0.02

_log = logging.getLogger("llm_provider.api")

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Settings:
    """What the chat API needs to know beside its engine.

    From the environment: CHAT_API_KEYS_FILE (required), LLM_HOLD_SECONDS (how long a request waits
    for an engine that is not ready, 60), LLM_DRAIN_SECONDS (how long requests that run may go on
    when the chat API stops or the engine is changed, 30), LLM_MODEL_ALIASES (other names of the
    served model, separated by commas). Of the engine's: CTX_SIZE (tokens of one conversation, for
    reports), PARALLEL (requests that it runs at once, 1), LLM_ENGINE_FILE (see `target`).
    """

    keys: KeyFile
    target: Target
    hold_seconds: float
    drain_seconds: float
    aliases: tuple[str, ...]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; raises ConfigurationError naming what is missing or wrong."""
        path = environ.get("CHAT_API_KEYS_FILE")
        if not path:
            raise ConfigurationError(
                "CHAT_API_KEYS_FILE is not set; it must name a file with one API key per line."
            )
        names = (part.strip() for part in environ.get("LLM_MODEL_ALIASES", "").split(","))
        return cls(
            keys=KeyFile(Path(path)),
            target=Target(environ),
            hold_seconds=number(environ, "LLM_HOLD_SECONDS", 60),
            drain_seconds=number(environ, "LLM_DRAIN_SECONDS", 30),
            aliases=tuple(name for name in names if name),
        )


class ChatAPI:
    """The routes' handlers, and the state that they share."""

    def __init__(self, gate: Gate, settings: Settings, metrics: Metrics) -> None:
        self._gate = gate
        self._settings = settings
        self._metrics = metrics
        self._started = int(time.time())

    async def health(self) -> dict[str, str]:
        """Alive: this process answers. Nothing is said of the engine."""
        return {"status": "ok", "version": __version__}

    async def ready(self) -> Response:
        """Whether the engine would answer a chat request now, asked of it now."""
        gate = self._gate
        await gate.probe()
        capacity, target = gate.capacity, self._settings.target
        report = {
            "ready": gate.open,
            "provider": gate.provider.name,
            "model": gate.provider.model,
            "context_size": capacity.context_size or target.context_size,
            "parallel": capacity.parallel or gate.parallel,
            "gpu_share": capacity.gpu_share,
            "engine": gate.provider.base_url,
            "in_flight": gate.running + gate.leaving,
            "leaving": gate.leaving,
            "queued": gate.queued,
            "held": gate.held,
            "holding": gate.paused,
        }
        if gate.open:
            return JSONResponse(report)
        problem = APIError.of(Stopping() if gate.stopping else EngineLoadingError(gate.waiting_for))
        return problem.response(**report)

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self) -> dict[str, object]:
        """The names by which the one model may be asked for, in OpenAI's shape."""
        return {"object": "list", "data": [self._entry(name) for name in self._served]}

    async def model(self, name: str) -> dict[str, object]:
        """One of those names."""
        if not name:
            raise HTTPException(404)
        self._check_model(name)
        return self._entry(name)

    def completion(self, path: str) -> Handler:
        """A handler for one of OpenAI's routes: streamed or not, answered by the engine."""
        streams = "stream" in schema.BODIES[path]["properties"]

        async def handle(request: Request) -> Response:
            arrived = time.monotonic()
            raw = await _read(request)
            body = _parse(raw)
            _require(body, path)
            kind = Stream if streams and body.get("stream") else Whole
            return kind(self._gate, self._question(request, path, raw, body, arrived))

        handle.__name__ = path.removeprefix("/v1/").replace("/", "_")
        return handle

    async def message(self, request: Request) -> Response:
        """A message in, an answer out; streamed on request."""
        arrived = time.monotonic()
        raw = await _read(request)
        body = _parse(raw)
        _require(body, MESSAGE)
        message, system = body.pop("message"), body.pop("system", None)
        if system is not None and not isinstance(system, str):
            raise APIError(400, "'system' must be a string.", param="system")
        body = one_message(message, system, body)
        kind = MessageStream if body.get("stream") else Message
        return kind(self._gate, self._question(request, CHAT, raw, body, arrived))

    def _question(
        self, request: Request, path: str, raw: bytes, body: dict[str, Any], arrived: float
    ) -> Question:
        name = body.get("model")
        self._check_model(name)
        need = _need_of(raw, body)
        return Question(
            path, body, arrived, need, request.state.notes, lambda: self._check_model(name)
        )

    @property
    def _served(self) -> list[str]:
        return list(dict.fromkeys((self._gate.provider.model, *self._settings.aliases)))

    def _entry(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "edge-llm"}

    def _check_model(self, name: object) -> None:
        if name is not None and not isinstance(name, str):
            raise APIError(400, "'model' must be a string.", param="model")
        served = self._served
        if name and name != DEFAULT_MODEL and name not in served:
            raise APIError(
                404,
                f"The model {name!r} is not served here; served: {', '.join(served)}.",
                param="model",
                code="model_not_found",
            )


class Application(FastAPI):
    """FastAPI, with the routes that engines answer in a lane of their own.

    Its layers (nine of them, and a wrapper each around every chunk sent) cost those a fifth of all
    that the chat API does for a request, and they use none of them. The same handlers are FastAPI's
    too: for its OpenAPI document, and for whatever method is not POST.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._lane: dict[str, tuple[BaseRoute, Handler]] = {}
        self._edge: Edge | None = None

    def openapi(self) -> dict[str, Any]:
        return schema.document(super().openapi())

    def answer(self, path: str, handler: Handler, **described: Any) -> None:
        """Have `handler` answer POST `path`."""
        self.post(path, response_model=None, **described)(handler)
        self._lane[path] = self.routes[-1], handler

    def enclose(self, gate: Gate, keys: KeyFile, metrics: Metrics) -> None:
        """Put the outermost layer around everything."""
        self._edge = Edge(self._inside, gate, keys, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._edge is not None:
            await self._edge(scope, receive, send)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._lane:
            await super().__call__(scope, receive, send)
            return
        scope["route"], handler = self._lane[scope["path"]]
        request = Request(scope, receive)
        try:
            response: Response = await handler(request)
            await response(scope, receive, send)
        except FORESEEN as error:
            await (await answer_error(request, error))(scope, receive, send)


def create_app(
    environ: Mapping[str, str] = os.environ, *, provider: LLMProvider | None = None
) -> Application:
    """Return the chat API as an ASGI application; its gate is `app.state.gate`, and the time
    that a stop allows `app.state.drain_seconds`.

    `provider` replaces the one that `environ` describes. Raises ConfigurationError, with a
    sentence for whoever set the environment.
    """
    settings = Settings.from_environ(environ)
    target = settings.target
    engine = provider or get_llm_provider(environ=target.settings)
    gate = Gate(engine, target.parallel, settings.hold_seconds)
    if target.hold:
        gate.pause(HELD, target.hold)
    metrics = Metrics(gate)
    api = ChatAPI(gate, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        tasks = (
            asyncio.create_task(gate.watch()),
            asyncio.create_task(target.follow(gate)),
        )
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await gate.provider.close()

    app = Application(
        title="edge-llm chat API",
        version=__version__,
        lifespan=lifespan,
        # They would load scripts from elsewhere; /openapi.json stays, behind the key.
        docs_url=None,
        redoc_url=None,
        # It would record exceptions with their text, and send it wherever the environment says.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.gate = gate
    app.state.drain_seconds = settings.drain_seconds
    app.get(OPEN)(api.health)
    app.get("/ready", **schema.operation(None, 401, 503))(api.ready)
    app.get("/metrics", response_class=PlainTextResponse, **schema.operation(None, 401))(
        api.metrics
    )
    app.get("/v1/models", **schema.operation(None, 401))(api.models)
    # A model's name may hold slashes.
    app.get("/v1/models/{name:path}", **schema.operation(None, 401, 404))(api.model)
    failures = (400, 401, 404, 413, 429, 502, 503, 504)
    for path in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES):
        app.answer(path, api.completion(path), **schema.operation(path, *failures, 501))
    app.answer(MESSAGE, api.message, **schema.operation(MESSAGE, *failures))
    for kind in (*FORESEEN, HTTPException):
        app.add_exception_handler(kind, answer_error)
    app.enclose(gate, settings.keys, metrics)
    return app


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
    """Return a body. Raises APIError 400 for what is none, or holds what JSON cannot."""

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is no number of JSON")
        return value

    def whole(text: str) -> int:
        if len(text) > _MOST_DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        return int(text)

    try:
        body = json.loads(raw, parse_float=finite, parse_int=whole, parse_constant=finite)
    except RecursionError as error:
        raise APIError(400, "The body is nested too deeply.") from error
    except ValueError as error:
        raise APIError(400, f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise APIError(400, "The body must be a JSON object.")
    return body


def _need_of(raw: bytes, body: dict[str, Any]) -> Need:
    """What a body asks of a context that conversations share."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        most = body.get(name)
        if isinstance(most, int) and most > 0:
            return Need(len(raw), most)
    return Need(len(raw))


def _require(body: dict[str, Any], path: str) -> None:
    """Raise APIError 400 where the field that a route is about is not there, or `stream` is odd."""
    (field,) = schema.BODIES[path]["required"]
    value = body.get(field)
    if field == "messages":
        usable = isinstance(value, list) and all(isinstance(each, dict) for each in value)
        kind = "a list of at least one message"
    elif field == "message":
        usable, kind = isinstance(value, str), "a text"
    else:
        usable, kind = isinstance(value, str | list), "a text or a list"
    if not usable or not value:
        raise APIError(400, f"'{field}' must be {kind}.", param=field)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise APIError(400, "'stream' must be true or false.", param="stream")


class Server(uvicorn.Server):
    """Uvicorn, which sends away what waits as soon as it is told to stop, and can retire.

    Retiring (SIGUSR1), it takes no more connections and ends everything that came over those there
    are; then it waits to be stopped, since a process that ended by itself would be started again.
    """

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self.lost_door = False
        self._gate = gate
        self._passage = Passage(gate)
        self._listeners = Listeners([])
        self._retirement: asyncio.Task[None] | None = None

    def serve_on(self, listeners: Listeners) -> None:
        """Serve on these until told to stop."""
        self._listeners = listeners
        self.run(listeners.api)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        if self._listeners.engine is not None:
            await self._passage.serve(self._listeners.engine)
        if self._listeners.door is not None:
            loop.add_reader(self._listeners.door, self._lose_door)
        loop.add_signal_handler(signal.SIGUSR1, self._retire)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gate.stop()
        if self._retirement is not None:
            self._retirement.cancel()
        await self._passage.close()
        try:
            await super().shutdown(sockets)
        finally:
            self._listeners.forget_own()

    def _lose_door(self) -> None:
        """End, and let go of its sockets: a new door could not open its own beside them."""
        _log.error("the door is gone; this process ends, to be started with the sockets of another")
        self._leave_door()
        self.lost_door = True
        # Whoever came through the door went with it: there is nobody to wait for.
        self.config.timeout_graceful_shutdown = 0
        self.should_exit = True

    def _leave_door(self) -> None:
        if self._listeners.door is not None:
            asyncio.get_running_loop().remove_reader(self._listeners.door)

    def _retire(self) -> None:
        if self._retirement is not None or self.should_exit:
            return
        _log.info("retiring", extra={"in_flight": self._gate.running + self._gate.leaving})
        self._gate.retire()
        self._leave_door()
        for server in self.servers[:-1] if self._listeners.own else self.servers:
            server.close()
        self._passage.shut()
        self._listeners.close_shared()
        self._retirement = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        """Wait until all that was accepted is answered; then be found no more."""
        idle: dict[HttpToolsProtocol, float] = {}
        while (clients := self._clients()) or not self._gate.empty:
            now = time.monotonic()
            idle = {
                each: idle.get(each, now)
                for each in clients
                if each.cycle is None or each.cycle.response_complete
            }
            for each, since in idle.items():
                if now - since >= LINGER_SECONDS:
                    each.shutdown()
            await asyncio.sleep(_LOOK_SECONDS)
        self._gate.stop()
        self._listeners.forget_own()
        for server in self.servers:
            server.close()
        _log.info("retired: all that came is answered")

    def _clients(self) -> list[HttpToolsProtocol]:
        """Connections over the network; over its own socket it is only asked how far it is."""
        return [
            each
            for each in self.server_state.connections
            if isinstance(each, HttpToolsProtocol) and each.client
        ]


def server_config(app: Application, **more: Any) -> uvicorn.Config:
    """How uvicorn serves the chat API, wherever it listens."""
    return uvicorn.Config(
        app,
        # Nobody stands between: an address in a header is whatever a client makes up.
        proxy_headers=False,
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        **more,
    )


def main(argv: list[str] | None = None) -> int:
    """Serve the chat API until told to stop (SIGTERM, SIGINT); SIGUSR1 has it retire.

    From the environment, beside what `create_app` reads: CHAT_API_DOOR (the door's socket, see
    `listeners`; none: a port of its own) and CHAT_API_SOCKET (a Unix socket of its own, none).
    Exit status 1: it could not start, or the door is gone; 2: a wrong setting.
    """
    parser = argparse.ArgumentParser(prog="python -m llm_provider.api", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - it serves the network
    parser.add_argument("--port", type=int, default=API_PORT)
    parser.add_argument(
        "--engine-port",
        type=int,
        default=ENGINE_PORT,
        help="of the door, for the engine",
    )
    arguments = parser.parse_args(argv)
    logs.configure()
    # It is told as soon as there is something that can retire, and ends nothing before.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        app = create_app()
        config = server_config(
            app,
            host=arguments.host,
            port=arguments.port,
            loop="uvloop",
            # Longer than clients keep idle connections, so that they close them, between requests.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=math.ceil(app.state.drain_seconds),
        )
        server = Server(config, app.state.gate)
        for wanted in (signal.SIGTERM, signal.SIGINT):
            # Once it has stopped, uvicorn raises the signal again, to whoever had it before: had
            # that been the system, a clean stop would end as one by a signal.
            signal.signal(wanted, server.handle_exit)
        listeners: Listeners | None
        if door := os.environ.get("CHAT_API_DOOR"):
            listeners = from_door(
                Path(door), arguments.port, arguments.engine_port, lambda: server.should_exit
            )
        else:
            listeners = Listeners([config.bind_socket()])
        if listeners is None:
            return 0  # told to stop while it waited for the door
        if own := os.environ.get("CHAT_API_SOCKET"):
            listeners.add_own(Path(own))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    server.serve_on(listeners)
    return 0 if server.started and not server.lost_door else 1


if __name__ == "__main__":
    sys.exit(main())
