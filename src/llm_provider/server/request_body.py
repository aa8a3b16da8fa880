"""The body of a request: read, parsed and checked, as far as the chat API itself looks at it."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi import Request

from llm_provider.server.api_errors import APIError
from llm_provider.server.routes import Route

MAX_BODY_BYTES = 4 * 1024 * 1024
# A larger body is read to here before it is refused: a client whose connection breaks while it
# sends learns nothing.
_DRAIN_BYTES = 8 * MAX_BODY_BYTES
_MOST_DIGITS = 1000


async def read_body(request: Request) -> bytes:
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


def parse_body(raw: bytes) -> dict[str, Any]:
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


def check_body(body: dict[str, Any], route: Route) -> None:
    """Raise APIError 400 where the field that a route is about is not there, or `stream` is odd."""
    field = route.required
    value = body.get(field.name)
    if not field.accepts(value) or not value:
        raise APIError(400, f"'{field.name}' must be {field.kind}.", param=field.name)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise APIError(400, "'stream' must be true or false.", param="stream")
