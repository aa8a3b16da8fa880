"""Handlers of the routes that the chat API answers itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from llm_provider import __version__
from llm_provider.errors import EngineLoadingError
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.api_errors import APIError
from llm_provider.server.engine_metrics import EngineMetrics
from llm_provider.server.formats import OPENAI, ErrorFormat
from llm_provider.server.metrics import CONTENT_TYPE, Metrics
from llm_provider.server.models import Models
from llm_provider.server.node_metrics import NodeMetrics
from llm_provider.server.ticket import Stopping


@dataclass(frozen=True)
class OwnRoute:
    """A route that the chat API answers itself; where `method` is GET, HEAD is answered too.

    `description`: of the OpenAPI document, since the image's bytecode has no docstrings;
    `failures`: how it can fail, as HTTP statuses; `open`: whether it needs no key; `metrics`:
    whether a key of metrics alone is enough.
    """

    path: str
    handler: Callable[..., Awaitable[Any]]
    description: str
    failures: tuple[int, ...] = (401,)
    open: bool = False
    response_class: type[Response] = JSONResponse
    method: str = "GET"
    errors: ErrorFormat = OPENAI
    metrics: bool = False


class Handlers:
    """The handlers, and the state that they share."""

    def __init__(
        self,
        queue: AdmissionQueue,
        models: Models,
        metrics: Metrics,
        node_socket: Path | None = None,
    ) -> None:
        self._queue = queue
        self._models = models
        self._metrics = metrics
        self._engine_metrics = EngineMetrics(queue.engine, models)
        self._node_metrics = NodeMetrics(node_socket)

    @property
    def routes(self) -> tuple[OwnRoute, ...]:
        """The routes."""
        return (
            OwnRoute(
                "/health",
                self.health,
                "Alive: this process answers. Nothing is said of the engine.",
                (),
                open=True,
            ),
            OwnRoute(
                "/ready",
                self.ready,
                "Whether the engine would answer a chat request now, asked of it now.",
                (401, 503),
            ),
            OwnRoute(
                "/metrics",
                self.metrics,
                "Counters for Prometheus.",
                response_class=PlainTextResponse,
                metrics=True,
            ),
            OwnRoute(
                "/metrics/engine",
                self._engine_metrics.metrics,
                "The engine's own metrics for Prometheus, as it writes them.",
                (401, 501, 502, 503, 504),
                response_class=PlainTextResponse,
                metrics=True,
            ),
            OwnRoute(
                "/metrics/node",
                self._node_metrics.metrics,
                "The metrics of the host's node exporter, with the readings of the board.",
                (401, 501, 502, 504),
                response_class=PlainTextResponse,
                metrics=True,
            ),
            OwnRoute(
                "/v1/models",
                self.models,
                "The names by which the one model may be asked for, in OpenAI's shape.",
            ),
            # A model's name may hold slashes.
            OwnRoute("/v1/models/{name:path}", self.model, "One of those names.", (401, 404)),
        )

    async def health(self) -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    async def ready(self) -> Response:
        queue = self._queue
        engine = queue.engine
        await engine.probe()
        report: dict[str, Any] = {
            "ready": queue.open,
            "provider": engine.provider.name,
            "model": engine.provider.model,
            "task": self._models.task.value,
            "context_size": self._models.context_size,
            "parallel": engine.parallel,
            "gpu_share": engine.capacity.gpu_share,
            "engine": engine.provider.base_url,
            "in_flight": queue.running + queue.leaving,
            "leaving": queue.leaving,
            "queued": queue.queued,
            "held": queue.held,
            "holding": engine.on_hold,
        }
        if queue.open:
            return JSONResponse(report)
        reason = Stopping() if queue.stopping else EngineLoadingError(engine.waiting_for)
        return APIError.of(reason).response(**report)

    async def metrics(self) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self) -> dict[str, object]:
        models = self._models
        return {"object": "list", "data": [models.entry(name) for name in models.names]}

    async def model(self, name: str) -> dict[str, object]:
        if not name:
            raise HTTPException(404)
        self._models.check(name)
        return self._models.entry(name)


class Documents:
    """The OpenAPI document, and a page that shows it. The page loads its scripts from a CDN."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def openapi(self) -> Response:
        return JSONResponse(self._app.openapi())

    async def docs(self) -> Response:
        return get_swagger_ui_html(openapi_url="openapi.json", title=self._app.title)
