"""The route table: what each route that the engine answers needs.

A route is added by adding a `Route` to `ROUTES`; FastAPI's routes, the OpenAPI document and the
format of errors follow from the table. A client's API that engines do not speak has a `Translator`
(see there) for requests and answers, an `ErrorFormat`, and a `StreamFormat` where it does not
stream server-sent events:

    Route(
        "/v1/messages",
        CHAT,
        MESSAGES,
        translator=AnthropicTranslator,
        errors=ANTHROPIC_ERRORS,
    )

`required` is checked as soon as the body is there, before the request waits for the engine;
`check` is for whatever else can be refused that early. The translator works when it is the
request's turn, since the engine can be another one by then. Routes that the chat API answers itself
(GET, mostly) are in `handlers`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.providers.settings import Task
from llm_provider.server.fields import Fields
from llm_provider.server.message import MessageTranslator, check_system
from llm_provider.server.translator import MakeTranslator, Translator

MESSAGE = "/api/chat"

_STRING = {"type": "string"}


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


def _openai_body(status: int, error: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return {"error": error}


def _openai_event(body: Mapping[str, Any]) -> bytes:
    # Blank lines first: an event may have been cut off.
    return f"\n\ndata: {json.dumps(body)}\n\n".encode()


_OPTIONAL_STRING = {"type": ["string", "null"]}
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


@dataclass(frozen=True)
class StreamFormat:
    """What a client's API streams: `media_type`, and a `comment` that its clients ignore.

    The comment is sent while a request waits for its turn; None where there is no such thing.
    """

    media_type: bytes
    comment: bytes | None


SSE = StreamFormat(b"text/event-stream; charset=utf-8", b": queued\n\n")
JSON_LINES = StreamFormat(b"application/x-ndjson", None)


@dataclass(frozen=True)
class Field:
    """The field that a route is about: its name, its schema, and a check that raises FieldError."""

    name: str
    schema: Mapping[str, Any]
    check: Callable[[Fields, str], None]


@dataclass(frozen=True)
class Route:
    """A POST route that the engine answers.

    `path`: the client's; `engine_path`: the engine's own route, where the translator names no
    other. `task`: what the engine must have been started for. `everywhere`: whether every engine of
    that task has the route; else 501 is an answer of this one. `streams`: whether the body may ask
    for a stream. `batch`: whether a list in the required field holds several prompts. `further`:
    schemas of other fields that the chat API reads. `check`: raises FieldError or APIError, before
    the request waits. `choose`: another route for a body that belongs to it: two clients' APIs have
    the path /api/chat. `translator`, `errors` and `stream`: see the module.
    """

    path: str
    engine_path: str
    required: Field
    task: Task = Task.CHAT
    everywhere: bool = False
    streams: bool = True
    batch: bool = False
    further: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Fields], None] = lambda fields: None
    choose: Callable[[Fields], Route | None] = lambda fields: None
    translator: MakeTranslator = Translator
    errors: ErrorFormat = OPENAI
    stream: StreamFormat = SSE

    @property
    def name(self) -> str:
        """The name of its operation in the OpenAPI document."""
        return self.path.removeprefix("/v1/").strip("/").replace("/", "_")


def _text_or_list(name: str) -> Field:
    schema = {"anyOf": [_STRING, {"type": "array", "minItems": 1}]}
    return Field(name, schema, Fields.require_text_or_list)


MESSAGES = Field(
    "messages",
    {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": ["role"], "properties": {"role": _STRING}},
    },
    Fields.require_objects,
)


def _table(routes: Iterable[Route]) -> dict[str, Route]:
    return {route.path: route for route in routes}


ROUTES = _table(
    (
        Route(CHAT, CHAT, MESSAGES),
        Route(COMPLETIONS, COMPLETIONS, _text_or_list("prompt"), batch=True),
        Route(
            EMBEDDINGS,
            EMBEDDINGS,
            _text_or_list("input"),
            task=Task.EMBEDDING,
            streams=False,
            batch=True,
        ),
        Route(RESPONSES, RESPONSES, _text_or_list("input")),
        Route(
            MESSAGE,
            CHAT,
            Field("message", {"type": "string", "minLength": 1}, Fields.require_text),
            everywhere=True,
            further={"system": _STRING},
            check=check_system,
            translator=MessageTranslator,
        ),
    )
)
"""The routes, by their paths."""


def errors_of(path: str) -> ErrorFormat:
    """Return the format of errors at a path, whether or not a request to it gets to a route."""
    route = ROUTES.get(path)
    return OPENAI if route is None else route.errors
