"""The chat API as an ASGI application: `create_app()` makes it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from llm_provider import __version__
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.selection import get_llm_provider
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.api_errors import FORESEEN, answer_error
from llm_provider.server.engine_file import HELD, EngineFile
from llm_provider.server.engine_state import EngineState
from llm_provider.server.handlers import Handler, Handlers
from llm_provider.server.keys import KeyFile
from llm_provider.server.metrics import Metrics
from llm_provider.server.middleware import Middleware
from llm_provider.server.openapi import describe, describe_route, document
from llm_provider.server.routes import MESSAGE, OPEN, ROUTES, Route
from llm_provider.server.settings import ServerSettings


class Application(FastAPI):
    """FastAPI, with the routes that engines answer in a lane of their own.

    Its layers (nine of them, and a wrapper each around every chunk sent) cost those a fifth of all
    that the chat API does for a request, and they use none of them. The same handlers are FastAPI's
    too: for its OpenAPI document, and for whatever method is not POST.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._lane: dict[str, tuple[BaseRoute, Route, Handler]] = {}
        self._middleware: Middleware | None = None

    def openapi(self) -> dict[str, Any]:
        return document(super().openapi())

    def answer(self, route: Route, handler: Handler) -> None:
        """Have `handler` answer POST requests to `route`."""
        self.post(route.path, response_model=None, **describe_route(route))(handler)
        self._lane[route.path] = self.routes[-1], route, handler

    def enclose(self, engine: EngineState, keys: KeyFile, metrics: Metrics) -> None:
        """Put the outermost layer around everything."""
        self._middleware = Middleware(self._inside, engine, keys, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._middleware is not None:
            await self._middleware(scope, receive, send)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._lane:
            await super().__call__(scope, receive, send)
            return
        scope["route"], route, handler = self._lane[scope["path"]]
        request = Request(scope, receive)
        try:
            response: Response = await handler(request)
            await response(scope, receive, send)
        except FORESEEN as error:
            await (await answer_error(request, error, route.error_format))(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as GET would be answered, without the body."""

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        asked = {**scope, "method": "GET"}
        try:
            await super().__call__(asked, receive, send_head)
        finally:
            scope["route"] = asked.get("route")  # for the log


def create_app(
    environ: Mapping[str, str] = os.environ, *, provider: LLMProvider | None = None
) -> Application:
    """Return the chat API as an ASGI application.

    `app.state` has its `queue`, `settings` and `metrics`.
    `provider` replaces the one that `environ` describes. Raises ConfigurationError, with a
    sentence for whoever set the environment.
    """
    settings = ServerSettings.from_environ(environ)
    keys = KeyFile(settings.keys_file)
    engine_file = EngineFile(environ, settings.engine_file)
    described = engine_file.settings
    engine = EngineState(
        provider or get_llm_provider(environ=engine_file.environ), described.parallel
    )
    queue = AdmissionQueue(engine, settings.hold_seconds)
    if described.hold_seconds:
        engine.hold(HELD, described.hold_seconds)
    metrics = Metrics(queue)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        tasks = (
            asyncio.create_task(engine.watch()),
            asyncio.create_task(engine_file.follow(engine)),
        )
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await engine.provider.close()

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
    app.state.queue = queue
    app.state.settings = settings
    app.state.metrics = metrics
    _add_routes(app, Handlers(queue, engine_file, settings.aliases, metrics))
    app.enclose(engine, keys, metrics)
    return app


def _add_routes(app: Application, handlers: Handlers) -> None:
    app.get(OPEN)(handlers.health)
    app.get("/ready", **describe(401, 503))(handlers.ready)
    app.get("/metrics", response_class=PlainTextResponse, **describe(401))(handlers.metrics)
    app.get("/v1/models", **describe(401))(handlers.models)
    # A model's name may hold slashes.
    app.get("/v1/models/{name:path}", **describe(401, 404))(handlers.model)
    for route in ROUTES.values():
        handler = handlers.message if route.path == MESSAGE else handlers.proxy(route)
        app.answer(route, handler)
    for kind in (*FORESEEN, HTTPException):
        app.add_exception_handler(kind, answer_error)
