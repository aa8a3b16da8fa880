"""Answers other than success, in OpenAI's shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from llm_provider.errors import (
    EngineLoadingError,
    EngineRefusedError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    Unsupported,
)
from llm_provider.server.admission import QUEUE, QueueFull, Stopping
from llm_provider.server.routes import ErrorFormat, openai_error

_RETRY = {"Retry-After": "5"}


class APIError(Exception):
    """An answer other than success. `outcome` is what it is counted as."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        outcome: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.outcome = outcome or code or "bad_request"
        self.error = {"message": message, "type": type, "param": param, "code": code}

    @classmethod
    def of(cls, error: Exception) -> APIError:
        """Say any foreseen failure as ours. Raises `error` itself where it is not foreseen."""
        match error:
            case APIError():
                return error
            case LLMError():
                return cls._of_engine(error)
            case QueueFull():
                return cls(
                    429,
                    f"{QUEUE} requests wait for the engine already; try again later.",
                    type="rate_limit_error",
                    code="queue_full",
                    headers=_RETRY,
                )
            case Stopping():
                return cls(
                    503,
                    "The chat API is stopping, and nothing was done; try again later.",
                    type="server_error",
                    code="stopping",
                    headers=_RETRY,
                )
        raise error

    @classmethod
    def _of_engine(cls, error: LLMError) -> APIError:
        """The client's own fault as such, others as 502 to 504."""
        match error:
            case EngineLoadingError() | EngineUnreachableError():
                return cls(
                    503, str(error), type="server_error", code="engine_not_ready", headers=_RETRY
                )
            case Unsupported(param=None):
                return cls(501, str(error), code="not_supported_by_engine")
            case Unsupported():
                return cls(400, str(error), param=error.param, code="not_supported_by_engine")
            case EngineTimeoutError():
                return cls(504, str(error), type="server_error", code="engine_timeout")
            case EngineRefusedError(status=400 | 413 | 422):
                param, code = error.error.get("param"), error.error.get("code")
                return cls(
                    413 if error.status == 413 else 400,
                    error.words,
                    param=param if isinstance(param, str) else None,
                    code=code if isinstance(code, str) else None,
                    outcome="rejected",
                )
            case EngineRefusedError(status=429 | 503):
                return cls(503, str(error), type="server_error", code="engine_busy", headers=_RETRY)
        return cls(502, str(error), type="server_error", code="engine_error")

    def response(self, form: ErrorFormat = openai_error, **beside: Any) -> Response:
        """Return the answer in a format; `beside` are further keys of its body."""
        # ASCII escapes carry any text: an engine's words may quote half a character.
        body = json.dumps({**beside, **form(self.error)})
        return Response(body, self.status, self.headers, "application/json")


FORESEEN = (APIError, LLMError, QueueFull, Stopping)
"""What `APIError.of` can say."""


async def answer_error(
    request: Request, error: Exception, form: ErrorFormat = openai_error
) -> Response:
    """Answer any foreseen failure of a handler, in a route's format."""
    if isinstance(error, HTTPException):
        problem = APIError(
            error.status_code,
            f"{request.method} {request.url.path}: {error.detail}.",
            outcome="no_route",
            headers=error.headers,
        )
    else:
        problem = APIError.of(error)
    request.state.notes["outcome"] = problem.outcome
    if isinstance(error, LLMError):
        # Its kind alone: an engine's words may quote the request.
        request.state.notes["error"] = type(error).__name__
    return problem.response(form)
