"""One request of a client's API, as it goes to an engine and as its answer comes back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from llm_provider.providers.support import Feature
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.openai_format import Translated
from llm_provider.server.translations.thinking import ThinkingStyle

MOST_VALUES = 200_000
"""JSON values in a body that is decoded as a whole. As Python objects they take at most 25 MiB."""
_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{,]', re.DOTALL)
_EVENTS = b"text/event-stream; charset=utf-8"


class StreamTranslation(Protocol):
    """Translates one streamed answer; see `translations`."""

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """Translate one chunk of the engine's."""

    def finish(self) -> bytes:
        """Return what follows the last chunk."""

    def fail(self, status: int, error: Mapping[str, Any]) -> bytes:
        """Return what tells of a failure, from an OpenAI error; nothing comes after it."""


@dataclass(frozen=True)
class Translation:
    """A request: what it needs of the engine, and the functions that carry it there and back.

    `model` is the name that the client asked for. `request` translates the client's body for an
    engine; it raises TranslationError, as does `whole`, which translates a whole answer. `stream`
    returns what translates a streamed one; None where the client asked for a whole answer.
    `stream_type` is the Content-Type of a stream.
    """

    feature: Feature
    model: str
    request: Callable[[Mapping[str, Any], ThinkingStyle], Translated]
    whole: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    stream: Callable[[], StreamTranslation] | None = None
    stream_type: bytes = _EVENTS


def thinking_style(engine: str) -> ThinkingStyle:
    """Return how an engine is told whether to think, by its name."""
    return ThinkingStyle.EFFORT if engine == "ollama" else ThinkingStyle.TEMPLATE


def decode_object(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Decode a body as a whole. Raises TranslationError.

    A translation reads every value, and a body of 4 MiB can hold a million of them, which take a
    hundred times its size as Python objects: their number is checked before.
    """
    if _too_many(data):
        raise TranslationError(
            "", f"The body has more than {MOST_VALUES} values. Send fewer messages or tools."
        )
    try:
        body = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise TranslationError("", f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise TranslationError("", "The body must be a JSON object.")
    return body


def _too_many(data: bytes | bytearray | memoryview) -> bool:
    if len(data) <= MOST_VALUES:
        return False
    return any(count > MOST_VALUES for count, _ in enumerate(_VALUE.finditer(data), 1))
