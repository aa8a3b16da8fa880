"""What the chat API's bodies look like, for its OpenAPI document.

Only what the chat API itself looks at is described; the rest is the engine's to judge.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llm_provider.server.formats import ErrorFormat
from llm_provider.server.handlers import OwnRoute
from llm_provider.server.route import Route

_STRING = {"type": "string"}
_MODEL = {
    "model": {
        "type": ["string", "null"],
        "description": "The model that this host serves, one of its aliases, or `default`; "
        "may be left out.",
    }
}
_STREAM = {"stream": {"type": ["boolean", "null"], "default": False}}


def _body(route: Route) -> dict[str, Any]:
    """The body of a route, as a JSON schema."""
    if route.alternative is not None:
        return {"anyOf": [_body(replace(route, alternative=None)), _body(route.alternative)]}
    properties = {route.required.name: route.required.schema, **route.further}
    if route.streams:
        properties |= _STREAM
    return {
        "type": "object",
        "required": [route.required.name],
        "properties": {**properties, **_MODEL},
    }


_FAILURES = {
    400: "The body is not what it must be, or the engine refused it, in its own words.",
    401: "No valid API key.",
    404: "A model that is not served here; the message names those that are.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    429: "Too many requests wait already, or the key's rate is exceeded; Retry-After.",
    501: "The engine has no such route.",
    502: "The engine failed.",
    503: "The engine is not ready, or the chat API stops; Retry-After.",
    504: "The engine was silent for too long.",
}


# The ways in which a key may come, any one of which is enough.
_KEYS = {
    "key": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "password": {"type": "http", "scheme": "basic"},
}
_ANY_KEY: list[dict[str, list[str]]] = [{name: []} for name in _KEYS]

# How a POST route can fail, whatever its path.
_POST_FAILURES = (400, 401, 404, 408, 413, 429, 501, 502, 503, 504)


def describe(route: OwnRoute) -> dict[str, Any]:
    """Return FastAPI's arguments that describe a route that the chat API answers itself."""
    return {
        "description": route.description,
        "response_class": route.response_class,
        "responses": _responses(route.failures, route.errors),
        "openapi_extra": {} if route.open else {"security": _ANY_KEY},
    }


def describe_route(route: Route) -> dict[str, Any]:
    """Return FastAPI's arguments that describe a route that the engine answers."""
    forms = [route] if route.alternative is None else [route, route.alternative]
    described: dict[str, Any] = {
        "responses": _responses(_POST_FAILURES, *(form.errors for form in forms)),
        "openapi_extra": {"security": _ANY_KEY},
    }
    if route.streams:
        kinds = [form.stream.media_type.decode().partition(";")[0] for form in forms]
        described["responses"][200] = {
            "description": "The answer; piece by piece where `stream` is true.",
            "content": {kind: {} for kind in kinds},
        }
    is_file = route.required.schema.get("format") == "binary"
    if is_file:
        described["responses"][200] = {
            "description": "The answer; as text where `response_format` asks for one.",
            "content": {"text/plain": {}},
        }
    kind = "multipart/form-data" if is_file else "application/json"
    described["openapi_extra"]["requestBody"] = {
        "required": True,
        "content": {kind: {"schema": _body(route)}},
    }
    return described


def _responses(failures: tuple[int, ...], *errors: ErrorFormat) -> dict[int | str, dict[str, Any]]:
    schemas = [dict(each.schema) for each in errors]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {
        status: {
            "description": _FAILURES[status],
            "content": {"application/json": {"schema": schema}},
        }
        for status in failures
    }


def document(made: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document that FastAPI `made`, with what it cannot know.

    That is the key; and that nothing is answered 422, since the handlers look at bodies themselves.
    """
    for path in made["paths"].values():
        for one in path.values():
            one["responses"].pop("422", None)
    made["components"] = {"securitySchemes": _KEYS}
    return made
