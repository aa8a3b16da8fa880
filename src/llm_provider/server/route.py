"""What a route that the engine answers is described by; the table of routes is in `routes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_provider.providers.support import Feature
from llm_provider.server.fields import Fields
from llm_provider.server.formats import OPENAI, SSE, ErrorFormat, StreamFormat
from llm_provider.server.models import Models
from llm_provider.server.translator import Headers, Translator


@dataclass(frozen=True)
class Field:
    """The field that a route is about: its name, its schema, and a check that raises FieldError."""

    name: str
    schema: Mapping[str, Any]
    check: Callable[[Fields, str], None]


def _read_json(data: bytearray, headers: Headers) -> Fields:
    return Fields.parse(data)


@dataclass(frozen=True)
class Route:
    """A POST route that the engine answers.

    `path`: the client's. `feature`: what it needs of the engine, and where that has it. `required`
    is checked as soon as the body is there, before the request waits for the engine; `check` is for
    whatever else can be refused that early, by FieldError, TranslationError or APIError.

    `streams`: whether the body may ask for a stream; `streams_by_default`: whether it has one
    unless it says that it wants none. `batch`: whether a list in the required field holds several
    prompts. `takes_slot`: whether the request takes one of the engine's slots, and so waits for
    others. `most_tokens`: the most tokens of the answer, where the body bounds them.

    `further`: schemas of other fields that the chat API reads. `read`: makes fields of a body;
    FieldError and TranslationError for what is none. `alternative`: the route at the same path for
    bodies that have its required field: two clients' APIs have the path /api/chat. `own_answer`:
    the answer to a body that needs no engine, as JSON; None for all others. The translator works
    when it is the request's turn, since the engine can be another one by then.
    """

    path: str
    feature: Feature
    required: Field
    streams: bool = True
    streams_by_default: bool = False
    batch: bool = False
    takes_slot: bool = True
    further: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[bytearray, Headers], Fields] = _read_json
    check: Callable[[Fields], None] = lambda fields: None
    most_tokens: Callable[[Fields], int | None] = lambda fields: fields.max_tokens
    own_answer: Callable[[Fields, Models], Mapping[str, Any] | None] = lambda fields, models: None
    alternative: Route | None = None
    translator: type[Translator] = Translator
    errors: ErrorFormat = OPENAI
    stream: StreamFormat = SSE

    @property
    def name(self) -> str:
        """The name of its operation in the OpenAPI document."""
        return self.path.removeprefix("/v1/").strip("/").replace("/", "_")

    def of_body(self, fields: Fields) -> Route:
        """Return the route that a body belongs to: this one or the alternative."""
        other = self.alternative
        return other if other is not None and other.required.name in fields else self

    def wants_stream(self, fields: Fields) -> bool:
        """Whether a body asks for a stream. Raises FieldError."""
        streamed = fields.stream
        if self.streams_by_default and fields.small("stream") is None:
            streamed = True
        return streamed and self.streams
