"""What the chat API's bodies look like, for its OpenAPI document.

Only what the chat API itself looks at is described; the rest is the engine's to judge.
"""

from __future__ import annotations

from typing import Any

from llm_provider.base import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

_STRING = {"type": "string"}
_MODEL = {
    "model": {
        "type": ["string", "null"],
        "description": "The model that this host serves, one of its aliases, or `default`; "
        "may be left out.",
    }
}
_STREAM = {"stream": {"type": ["boolean", "null"], "default": False}}
_TEXT_OR_LIST = {"anyOf": [_STRING, {"type": "array", "minItems": 1}]}


def _body(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": [required], "properties": {**properties, **_MODEL}}


BODIES: dict[str, dict[str, Any]] = {
    CHAT: _body(
        "messages",
        messages={
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {"role": _STRING},
            },
        },
        **_STREAM,
    ),
    COMPLETIONS: _body("prompt", prompt=_TEXT_OR_LIST, **_STREAM),
    EMBEDDINGS: _body("input", input=_TEXT_OR_LIST),
    RESPONSES: _body("input", input=_TEXT_OR_LIST, **_STREAM),
    "/api/chat": _body(
        "message", message={"type": "string", "minLength": 1}, system=_STRING, **_STREAM
    ),
}
"""The body of each POST route, as a JSON schema."""

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _STRING,
                "type": _STRING,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_FAILURES = {
    400: "The body is not what it must be, or the engine refused it, in its own words.",
    401: "No valid API key.",
    404: "A model that is not served here; the message names those that are.",
    413: "The body is too large.",
    429: "Too many requests wait already; Retry-After.",
    501: "The engine has no such route.",
    502: "The engine failed.",
    503: "The engine is not ready, or the chat API stops; Retry-After.",
    504: "The engine was silent for too long.",
}


def operation(path: str | None, *failures: int) -> dict[str, Any]:
    """FastAPI's arguments that describe a route: the body of `path`, and how it can fail."""
    responses: dict[int, dict[str, Any]] = {
        status: {
            "description": _FAILURES[status],
            "content": {"application/json": {"schema": _ERROR}},
        }
        for status in failures
    }
    described: dict[str, Any] = {"responses": responses}
    extra: dict[str, Any] = {"security": [{"key": []}]}
    if path is not None:
        if "stream" in BODIES[path]["properties"]:
            responses[200] = {
                "description": "The answer; as server-sent events where `stream` is true.",
                "content": {"text/event-stream": {}},
            }
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": BODIES[path]}},
        }
    described["openapi_extra"] = extra
    return described


def document(made: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document that FastAPI `made`, with what it cannot know.

    That is the key; and that nothing is answered 422, since the handlers look at bodies themselves.
    """
    for path in made["paths"].values():
        for one in path.values():
            one["responses"].pop("422", None)
    made["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
    return made
