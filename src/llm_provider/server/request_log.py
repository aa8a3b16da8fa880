"""What every request gets: an id, one line in the log, its place in the metrics, an answer."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_provider.server.api_errors import MAY_HAVE_RUN, APIError, errors_of
from llm_provider.server.engine_state import EngineState
from llm_provider.server.formats import ANTHROPIC, error_format
from llm_provider.server.metrics import Metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = logging.getLogger("llm_provider.api")


HEALTH = "/health"
"""Asked every few seconds, by Docker and others: an answer of 200 is not worth a line."""


class RequestLog:
    """The layer around the application; see the module."""

    def __init__(self, app: ASGIApp, engine: EngineState, metrics: Metrics) -> None:
        self._app = app
        self._engine = engine
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        given = next(
            (value for name, value in scope["headers"] if name == b"x-request-id"), b""
        ).decode("latin-1")
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
                if error_format(scope["path"]) is ANTHROPIC:  # its SDKs' name for it
                    message["headers"].append((b"request-id", request_id.encode()))
                if self._engine.retiring:
                    # Said with an answer, it costs no client a request, as closing might.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        notes: dict[str, object] = {}
        state = scope.setdefault("state", {})
        state["notes"], state["request_id"] = notes, request_id
        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            notes.setdefault("outcome", "client_left")
        except Exception:
            _log.exception("defect", extra={"request_id": request_id})
            notes["outcome"] = "defect"
            if status:
                raise  # the answer has begun: only a broken connection can tell now
            defect = APIError(
                500,
                f"The chat API failed; its log tells why under request id {request_id}.",
                type="server_error",
                headers=MAY_HAVE_RUN,
            )
            await defect.response(errors_of(scope), request_id)(scope, receive, send_named)
        finally:
            if scope["path"] != HEALTH or status != 200:
                self._tell(scope, request_id, status, time.monotonic() - started, notes)

    def _tell(
        self, scope: Scope, request_id: str, status: int, seconds: float, notes: dict[str, object]
    ) -> None:
        # The path as we know it: what clients make up may hold anything.
        path = getattr(scope.get("route"), "path", None)
        outcome = str(notes.setdefault("outcome", "complete"))
        self._metrics.done(path or "other", outcome, seconds, notes)
        _log.info(
            "request",
            extra={
                "request_id": request_id,
                "method": scope["method"],
                "path": path,
                "status": status or None,
                "seconds": round(seconds, 4),
                "client": (scope.get("client") or [None])[0],
                **notes,
            },
        )
