"""Answers other than success: each failure by its status, type and code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from llm_provider.errors import (
    EngineLoadingError,
    EngineRefusedError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    Unsupported,
)
from llm_provider.providers.encoded_body import TooManyValuesError
from llm_provider.providers.error_body import context_overflow
from llm_provider.server.admission import QUEUE
from llm_provider.server.body import BodyRefusedError
from llm_provider.server.fields import FieldError
from llm_provider.server.formats import OPENAI, ErrorFormat, error_format
from llm_provider.server.public_text import engine_address, without_addresses
from llm_provider.server.refusal import Refusal
from llm_provider.server.ticket import QueueFull, Stopping
from llm_provider.server.translations.errors import TranslationError

if TYPE_CHECKING:
    from llm_provider.server.route import Route

_RETRY = {"Retry-After": "5"}
MAY_HAVE_RUN = {"x-should-retry": "false"}
"""Tells OpenAI's clients, which would send again whatever was answered 500 or more, not to."""
_MOST_FIGURES = 16


class APIError(Exception):
    """An answer other than success.

    `outcome` is what it is counted as; `figures` are further fields of the error.
    """

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
        figures: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.outcome = outcome or code or "bad_request"
        self.error: dict[str, Any] = {
            **(figures or {}),
            **{"message": message, "type": type, "param": param, "code": code},
        }

    @classmethod
    def of(cls, error: Exception) -> APIError:
        """Say any foreseen failure as ours. Raises `error` itself where it is not foreseen."""
        match error:
            case APIError():
                return error
            case FieldError() | TranslationError() | TooManyValuesError():
                return cls(400, str(error), param=error.param)
            case LLMError():
                return cls._of_engine(error)
            case BodyRefusedError():
                return cls(
                    error.status,
                    str(error),
                    type="server_error" if error.status == 503 else "invalid_request_error",
                    code=error.code,
                    headers=_RETRY if error.status == 503 else None,
                )
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
        text = without_addresses(str(error))
        match error:
            case EngineLoadingError() | EngineUnreachableError():
                return cls(503, text, type="server_error", code="engine_not_ready", headers=_RETRY)
            case Unsupported(param=None):
                # Nor would it work another time.
                return cls(501, text, code="not_supported_by_engine", headers=MAY_HAVE_RUN)
            case Unsupported():
                return cls(400, text, param=error.param, code="not_supported_by_engine")
            case EngineTimeoutError():
                return cls(
                    504, text, type="server_error", code="engine_timeout", headers=MAY_HAVE_RUN
                )
            case EngineRefusedError(status=400 | 413 | 422):
                return cls._of_refusal(error)
            case EngineRefusedError(
                error={"type": "exceed_context_size_error"}
            ):  # of whatever status
                return cls._of_refusal(error)
            case EngineRefusedError(status=429 | 503):
                return cls(503, text, type="server_error", code="engine_busy", headers=_RETRY)
        return cls(502, text, type="server_error", code="engine_error", headers=MAY_HAVE_RUN)

    @classmethod
    def _of_refusal(cls, error: EngineRefusedError) -> APIError:
        """The engine's own words, type, code and figures; one code for a context that is full."""
        said = error.error
        overflow = context_overflow(error.words, said)
        code = said.get("code")
        kind, param = said.get("type"), said.get("param")
        return cls(
            413 if error.status == 413 and overflow is None else 400,
            without_addresses(error.words),
            type=kind[:100] if isinstance(kind, str) and kind else "invalid_request_error",
            param=param if isinstance(param, str) else None,
            # OpenAI's codes are texts.
            code=_text(code) if overflow is None else "context_length_exceeded",
            outcome="rejected",
            figures=_figures(said) | (overflow or {}),
        )

    def body(self, errors: ErrorFormat, request_id: str) -> dict[str, Any]:
        """Return the answer's body in a format."""
        return errors.body(self.status, self.error, request_id)

    def response(
        self, errors: ErrorFormat = OPENAI, request_id: str = "", **beside: Any
    ) -> Response:
        """Return the answer in a format; `beside` are further keys of its body."""
        # ASCII escapes carry any text: an engine's words may quote half a character.
        body = json.dumps({**beside, **self.body(errors, request_id)})
        return Refusal(body, self.status, self.headers, "application/json")


def _text(code: object) -> str | None:
    if isinstance(code, str):
        return code[:100]
    return str(code)[:100] if isinstance(code, int) else None


def _figures(said: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an engine's error, beside its code."""
    numbers = {
        name: value
        for name, value in said.items()
        if isinstance(value, int | float) and math.isfinite(value) and name.isidentifier()
    }
    return dict(list(numbers.items())[:_MOST_FIGURES])


FORESEEN = (
    APIError,
    LLMError,
    QueueFull,
    Stopping,
    BodyRefusedError,
    FieldError,
    TranslationError,
)
"""What `APIError.of` can say."""


def note_failure(notes: dict[str, object], error: LLMError) -> None:
    """Have the log tell of a failure: its kind alone, as an engine's words may quote the request;
    and the address of the engine, which clients do not get.
    """
    notes["error"] = type(error).__name__
    if address := engine_address(str(error)):
        notes["engine"] = address


def _with_head(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of a 405, which tell that HEAD is answered wherever GET is."""
    return {
        name: "GET, HEAD" if (name, value) == ("Allow", "GET") else value
        for name, value in headers.items()
    }


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer any foreseen failure of a request, in its route's format."""
    state = request.state
    if isinstance(error, HTTPException):
        problem = APIError(
            error.status_code,
            f"{request.method} {request.url.path}: {error.detail}.",
            outcome="no_route",
            headers=_with_head(error.headers or {}),
        )
    else:
        problem = APIError.of(error)
    state.notes["outcome"] = problem.outcome
    if isinstance(error, LLMError):
        note_failure(state.notes, error)
    return problem.response(errors_of(request.scope), state.request_id)


def errors_of(scope: Scope) -> ErrorFormat:
    """Return the format of a request's errors; the body decides, once it has been read."""
    route: Route | None = scope["state"].get("route")
    return error_format(scope["path"]) if route is None else route.errors
