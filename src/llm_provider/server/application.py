"""The chat API as an ASGI application: `create_app()` makes it.

A request passes `RequestLog`, FastAPI's routing, the dependencies of its route (key, rate), and its
handler. Handlers take nothing but the request: FastAPI would read a declared body before it looks
at dependencies, and a body is read only once its request has a place in the queue. What a handler
or its response raises is answered by `api_errors.answer_error`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from llm_provider import __version__
from llm_provider.errors import ConfigurationError
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.selection import get_llm_provider
from llm_provider.server.access import Access
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.api_errors import FORESEEN, answer_error
from llm_provider.server.body_budget import BodyBudget
from llm_provider.server.client_apis.ollama_info import OllamaInfo
from llm_provider.server.dropped_header import DROPPED_HEADER
from llm_provider.server.engine_file import HELD, EngineFile
from llm_provider.server.engine_port import EnginePort
from llm_provider.server.engine_state import EngineState
from llm_provider.server.handlers import Documents, Handlers, OwnRoute
from llm_provider.server.key_store import KeyFileError, KeyStore
from llm_provider.server.metrics import Metrics
from llm_provider.server.models import Models
from llm_provider.server.openapi import describe, describe_route, document
from llm_provider.server.proxy import Proxy
from llm_provider.server.rate_limit import RateLimiter
from llm_provider.server.request_log import RequestLog
from llm_provider.server.routes import ROUTES
from llm_provider.server.settings import ServerSettings

EXPOSED_HEADERS = ("X-Request-Id", "Retry-After", "X-Should-Retry", DROPPED_HEADER)
"""Headers of answers that a page of another origin may read."""


class Application(FastAPI):
    """FastAPI, whose document describes the keys and the bodies that handlers read themselves."""

    def openapi(self) -> dict[str, Any]:
        return document(super().openapi())


def create_app(
    environ: Mapping[str, str] = os.environ, *, provider: LLMProvider | None = None
) -> Application:
    """Return the chat API as an ASGI application.

    `app.state` has its `queue`, `settings` and `metrics`, and `engine_port`, the application for
    the engine's own API.
    `provider` replaces the one that `environ` describes. Raises ConfigurationError, with a
    sentence for whoever set the environment.
    """
    settings = ServerSettings.from_environ(environ)
    keys = _read_keys(settings)
    engine_file = EngineFile(environ, settings.engine_file)
    described = engine_file.settings
    engine = EngineState(
        provider or get_llm_provider(environ=engine_file.environ), described.parallel
    )
    queue = AdmissionQueue(engine, settings.hold_seconds)
    if described.hold_seconds:
        engine.hold(HELD, described.hold_seconds)
    limits = settings.limits
    budget = BodyBudget(limits.max_queued_body_bytes, limits.max_body_bytes)
    metrics = Metrics(queue, budget)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        keys.report()  # not before: a wrong setting is reported by its sentence alone
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
        # Both need a key here: see `handlers.Documents`.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # It would record exceptions with their text, and send it wherever the environment says.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.queue = queue
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.engine_port = EnginePort(
        lambda: engine.provider.base_url, lambda: engine_file.settings.api_key
    )
    models = Models(engine, engine_file, settings.aliases)
    access = Access(keys, RateLimiter(), settings.cors_origins)
    proxy = Proxy(
        queue=queue,
        models=models,
        access=access,
        budget=budget,
        settings=settings,
    )
    handlers = Handlers(queue, models, metrics, settings.node_socket)
    own = (*handlers.routes, *OllamaInfo(engine, models).routes)
    _add_routes(app, access, proxy, own)
    app.add_middleware(RequestLog, engine=engine, metrics=metrics)
    if settings.cors_origins:
        _allow_origins(app, settings.cors_origins)
    return app


def _read_keys(settings: ServerSettings) -> KeyStore:
    try:
        return KeyStore(settings.keys_file)
    except KeyFileError as error:
        raise ConfigurationError(str(error)) from None  # which may hold a part of a key


def _allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    # Outside of all else: a preflight has no key, and a page may read why it was refused.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
        max_age=600,
    )


def _add_routes(
    app: Application, access: Access, proxy: Proxy, own_routes: tuple[OwnRoute, ...]
) -> None:
    key, rate = Depends(access.check_key), Depends(access.check_rate)
    metrics_key = Depends(access.check_metrics_key)
    for own in own_routes:
        needed = metrics_key if own.metrics else key
        options: dict[str, Any] = {"dependencies": [] if own.open else [needed]}
        app.api_route(own.path, methods=[own.method], **describe(own), **options)(own.handler)
        if own.method == "GET":
            app.head(own.path, include_in_schema=False, **options)(own.handler)
    for route in ROUTES.values():
        options = {"dependencies": [key, rate], "response_model": None}
        app.post(route.path, **describe_route(route), **options)(proxy.handler(route))
    documents = Documents(app)
    hidden: dict[str, Any] = {"include_in_schema": False, "dependencies": [key]}
    for method in (app.get, app.head):
        method("/openapi.json", **hidden)(documents.openapi)
        if app.state.settings.docs:
            method("/docs", **hidden)(documents.docs)
    for kind in (*FORESEEN, HTTPException):
        app.add_exception_handler(kind, answer_error)
