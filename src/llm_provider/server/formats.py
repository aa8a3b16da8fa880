"""The formats of errors and of streams: each client's API has its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_provider.server.translations import anthropic_errors, anthropic_stream, ollama_response

_STRING = {"type": "string"}
_OPTIONAL_STRING = {"type": ["string", "null"]}


@dataclass(frozen=True)
class ErrorFormat:
    """How a client's API tells of errors.

    `body`: the body of an error, of its HTTP status, OpenAI's error object (message, type, param,
    code, and figures) and the request id. `event`: the bytes that tell of it within a stream that
    has begun, made of that body. `schema`: of the body, for the OpenAPI document.
    """

    body: Callable[[int, Mapping[str, Any], str], dict[str, Any]]
    event: Callable[[Mapping[str, Any]], bytes]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class StreamFormat:
    """What a client's API streams: `media_type`, and a `comment` that its clients ignore.

    The comment is sent while a request waits for its turn; None where there is no such thing.
    """

    media_type: bytes
    comment: bytes | None


SSE = StreamFormat(b"text/event-stream; charset=utf-8", b": queued\n\n")
JSON_LINES = StreamFormat(b"application/x-ndjson", None)


def _openai_body(status: int, error: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return {"error": error}


def _openai_event(body: Mapping[str, Any]) -> bytes:
    # Blank lines first: an event may have been cut off.
    return f"\n\ndata: {json.dumps(body)}\n\n".encode()


def _anthropic_event(body: Mapping[str, Any]) -> bytes:
    return anthropic_stream.event("error", error=body["error"])


def _ollama_body(status: int, error: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return dict(ollama_response.error_body(str(error.get("message") or "The request failed.")))


def _ollama_event(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


OPENAI = ErrorFormat(
    _openai_body,
    _openai_event,
    {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _STRING,
                    "type": _STRING,
                    "param": _OPTIONAL_STRING,
                    "code": _OPTIONAL_STRING,
                },
            }
        },
    },
)
ANTHROPIC = ErrorFormat(
    anthropic_errors.error_body,
    _anthropic_event,
    {
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": _STRING, "message": _STRING, "details": {"type": "object"}},
            },
            "request_id": _STRING,
        },
    },
)
OLLAMA = ErrorFormat(
    _ollama_body,
    _ollama_event,
    {"type": "object", "required": ["error"], "properties": {"error": _STRING}},
)

_BY_PREFIX = (("/v1/messages/", ANTHROPIC), ("/api/", OLLAMA))


def error_format(path: str) -> ErrorFormat:
    """Return the format of errors at a path, whether or not there is a route.

    It counts as long as the body has not been read: /api/chat's own `{"message": ...}`, whose
    errors are in OpenAI's format, is distinguished from Ollama's by the body.
    """
    return next((form for prefix, form in _BY_PREFIX if f"{path}/".startswith(prefix)), OPENAI)
