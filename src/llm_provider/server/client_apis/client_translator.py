"""What all translations of a client's API to OpenAI's chat have in common."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from llm_provider.errors import MalformedAnswer, Unsupported
from llm_provider.http.sse import DONE, EventParser
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.encoded_body import MOST_VALUES, TooManyValuesError, count_values
from llm_provider.providers.engine_http import Answer
from llm_provider.server.fields import Fields
from llm_provider.server.public_text import without_addresses
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.openai_format import Translated
from llm_provider.server.translations.thinking import ThinkingStyle
from llm_provider.server.translator import Asked, Translator


class Stream(Protocol):
    """Translates one streamed answer, by its parsed chunks; see `translations`."""

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """Return what a chunk becomes."""

    def finish(self) -> bytes:
        """Return what follows the last chunk."""


class ClientTranslator(Translator):
    """Decodes a request as a whole, and translates it and the answer to it.

    A subclass names the translations. Strict mode refuses the parameters that have none.
    """

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        translated = self.translate(decode_fields(asked.fields), thinking_style(provider.name))
        self.path = translated.path
        self.body = translated.body
        self.headers = []
        self.dropped = accept_dropped(translated, provider)

    @abstractmethod
    def translate(self, body: Mapping[str, Any], style: ThinkingStyle) -> Translated:
        """Return the engine's request for a client's. Raises TranslationError."""

    @abstractmethod
    def translate_answer(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the client's answer for the engine's. Raises TranslationError."""

    def whole(self, answer: Answer) -> bytes:
        return json.dumps(self.translate_answer(answer.data)).encode()


class StreamingTranslator(ClientTranslator):
    """Translates streamed answers too, event by event."""

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        super().__init__(asked, provider)
        self._stream = self.make_stream()
        self._parser = EventParser()
        self._failure: MalformedAnswer | TranslationError | None = None

    @abstractmethod
    def make_stream(self) -> Stream:
        """Return what translates the answer to the request that has been translated."""

    def feed(self, chunk: bytes) -> bytes:
        self._raise_failure()
        out = bytearray()
        try:
            for event in self._events(chunk):
                out += self._stream.feed(event)
        except (MalformedAnswer, TranslationError) as error:
            self._failure = error  # behind what came before it
        if not out:
            self._raise_failure()
        return bytes(out)

    def rest(self) -> bytes:
        self._raise_failure()
        return self._stream.finish()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _events(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        try:
            for data in self._parser.feed(chunk):
                event = json.loads(data) if data != DONE else None
                if isinstance(event, dict):
                    yield _public(event)
        except (ValueError, RecursionError) as error:
            raise MalformedAnswer("An event of the engine's stream is not JSON.") from error


def accept_dropped(translated: Translated, provider: LLMProvider) -> tuple[str, ...]:
    """Return a request's parameters without a translation. Raises Unsupported in strict mode."""
    if provider.strict and translated.dropped:
        param = translated.dropped[0]
        raise Unsupported(
            f"'{param}' does not fit {provider.name}: it would be ignored, which strict mode "
            "refuses. Leave it out.",
            param=param,
        )
    return translated.dropped


def thinking_style(engine: str) -> ThinkingStyle:
    """Return how a request switches thinking on and off, by the engine's name."""
    return ThinkingStyle.EFFORT if engine == "ollama" else ThinkingStyle.TEMPLATE


def decode_fields(fields: Fields) -> dict[str, Any]:
    """Decode a body as a whole. Raises TooManyValuesError.

    A translation reads every value, and a body of 4 MiB can hold a million of them, which take 25
    times its size as Python objects: all together are no more than one field may hold.
    """
    count = 0
    for name in fields.names:
        count += count_values(fields.raw(name) or b"", MOST_VALUES)
        if count > MOST_VALUES:
            raise TooManyValuesError(name)
    return dict(fields.body())


def _public(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event; the error in it tells no internal address."""
    error = event.get("error")
    if not error:
        return event
    words = error.get("message") if isinstance(error, dict) else error
    said = error if isinstance(error, dict) else {}
    return {"error": {**said, "message": without_addresses(str(words or "The engine failed."))}}
