"""The handlers of the chat API's routes, and the state that they share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from llm_provider import __version__
from llm_provider.errors import EngineLoadingError
from llm_provider.providers.chat_format import one_message
from llm_provider.server.admission import AdmissionQueue, Stopping
from llm_provider.server.api_errors import APIError
from llm_provider.server.engine_file import EngineFile
from llm_provider.server.message import MessageResponse, StreamedMessageResponse
from llm_provider.server.metrics import CONTENT_TYPE, Metrics
from llm_provider.server.proxy import ProxyRequest, StreamedResponse, WholeResponse
from llm_provider.server.request_body import check_body, parse_body, read_body
from llm_provider.server.routes import MESSAGE, ROUTES, Route
from llm_provider.server.token_estimate import TokenEstimate

DEFAULT_MODEL = "default"
"""The name by which any client may ask for the model that this host serves."""

Handler = Callable[[Request], Awaitable[Response]]


class Handlers:
    """The routes' handlers, and the state that they share."""

    def __init__(
        self,
        queue: AdmissionQueue,
        engine_file: EngineFile,
        aliases: tuple[str, ...],
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._engine_file = engine_file
        self._aliases = aliases
        self._metrics = metrics
        self._started = int(time.time())

    async def health(self) -> dict[str, str]:
        """Alive: this process answers. Nothing is said of the engine."""
        return {"status": "ok", "version": __version__}

    async def ready(self) -> Response:
        """Whether the engine would answer a chat request now, asked of it now."""
        queue = self._queue
        engine = queue.engine
        await engine.probe()
        capacity, settings = engine.capacity, self._engine_file.settings
        report: dict[str, Any] = {
            "ready": queue.open,
            "provider": engine.provider.name,
            "model": engine.provider.model,
            "context_size": capacity.context_size or settings.context_size,
            "parallel": engine.parallel,
            "gpu_share": capacity.gpu_share,
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

    def proxy(self, route: Route) -> Handler:
        """Return the handler of one of OpenAI's routes: streamed or not, answered by the engine."""

        async def handle(request: Request) -> Response:
            arrived = time.monotonic()
            raw = await read_body(request)
            body = parse_body(raw)
            check_body(body, route)
            kind = StreamedResponse if route.streams and body.get("stream") else WholeResponse
            return kind(self._queue, self._asked(request, route, raw, body, arrived))

        handle.__name__ = route.path.removeprefix("/v1/").replace("/", "_")
        return handle

    async def message(self, request: Request) -> Response:
        """A message in, an answer out; streamed on request."""
        arrived = time.monotonic()
        route = ROUTES[MESSAGE]
        raw = await read_body(request)
        body = parse_body(raw)
        check_body(body, route)
        message, system = body.pop("message"), body.pop("system", None)
        if system is not None and not isinstance(system, str):
            raise APIError(400, "'system' must be a string.", param="system")
        body = one_message(message, system, body)
        kind = StreamedMessageResponse if body.get("stream") else MessageResponse
        return kind(self._queue, self._asked(request, route, raw, body, arrived))

    def _asked(
        self, request: Request, route: Route, raw: bytes, body: dict[str, Any], arrived: float
    ) -> ProxyRequest:
        name = body.get("model")
        self._check_model(name)
        return ProxyRequest(
            route=route,
            body=body,
            arrived=arrived,
            estimate=TokenEstimate.of(raw, body, route),
            notes=request.state.notes,
            check=lambda: self._check_model(name),
        )

    @property
    def _served(self) -> list[str]:
        return list(dict.fromkeys((self._queue.engine.provider.model, *self._aliases)))

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
