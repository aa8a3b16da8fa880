"""The route table: what each POST route of the chat API needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

OPEN = "/health"
"""The one path that needs no key."""
MESSAGE = "/api/chat"

_STRING = {"type": "string"}

ErrorFormat = Callable[[Mapping[str, Any]], dict[str, Any]]


def openai_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an error in OpenAI's format; `error` has message, type, param, code."""
    return {"error": error}


@dataclass(frozen=True)
class Field:
    """The field that a route is about: what it must be, in words, as a schema and as a check."""

    name: str
    kind: str
    schema: Mapping[str, Any]
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class Route:
    """A route that the engine answers.

    `engine_path`: the engine's own route. `everywhere`: whether every engine has that route; else
    501 is an answer of this one. `streams`: whether the body may ask for a stream. `batch`: whether
    a list in the field that it is about holds several prompts. `further`: schemas of other fields
    that the chat API reads. `error_format`: the body of its errors.
    """

    path: str
    engine_path: str
    required: Field
    everywhere: bool = False
    streams: bool = True
    batch: bool = False
    further: Mapping[str, Any] = field(default_factory=dict)
    error_format: ErrorFormat = openai_error


def _is_messages(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _text_or_list(name: str) -> Field:
    schema = {"anyOf": [_STRING, {"type": "array", "minItems": 1}]}
    return Field(name, "a text or a list", schema, lambda value: isinstance(value, str | list))


_MESSAGES = Field(
    "messages",
    "a list of at least one message",
    {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": ["role"], "properties": {"role": _STRING}},
    },
    _is_messages,
)
_MESSAGE = Field(
    "message",
    "a text",
    {"type": "string", "minLength": 1},
    lambda value: isinstance(value, str),
)

ROUTES = {
    route.path: route
    for route in (
        Route(CHAT, CHAT, _MESSAGES),
        Route(COMPLETIONS, COMPLETIONS, _text_or_list("prompt"), batch=True),
        Route(EMBEDDINGS, EMBEDDINGS, _text_or_list("input"), streams=False, batch=True),
        Route(RESPONSES, RESPONSES, _text_or_list("input")),
        Route(MESSAGE, CHAT, _MESSAGE, everywhere=True, further={"system": _STRING}),
    )
}
"""The POST routes, by their paths."""
