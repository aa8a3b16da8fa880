"""Ollama's API: /api/chat, /api/generate, /api/embed and /api/embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from llm_provider.providers.base import LLMProvider
from llm_provider.server.client_apis.client_translator import (
    ClientTranslator,
    Stream,
    StreamingTranslator,
    decode_fields,
)
from llm_provider.server.fields import Fields
from llm_provider.server.models import Models
from llm_provider.server.translations.fields import as_name, require
from llm_provider.server.translations.ollama_embed import (
    embed_answer,
    embed_to_embeddings,
    embeddings_answer,
    embeddings_to_embeddings,
)
from llm_provider.server.translations.ollama_request import (
    chat_to_chat,
    generate_to_chat,
    is_load_request,
)
from llm_provider.server.translations.ollama_response import (
    Shape,
    Stopwatch,
    completion_to_answer,
    load_answer,
)
from llm_provider.server.translations.ollama_stream import OllamaStream
from llm_provider.server.translations.openai_format import Translated
from llm_provider.server.translations.thinking import ThinkingStyle
from llm_provider.server.translator import Asked

CHAT = "/api/chat"
GENERATE = "/api/generate"
EMBED = "/api/embed"
EMBEDDINGS = "/api/embeddings"

_REQUESTS: dict[Shape, Callable[[Mapping[str, Any], ThinkingStyle], Translated]] = {
    Shape.CHAT: chat_to_chat,
    Shape.GENERATE: generate_to_chat,
}


class _AnswerTranslator(StreamingTranslator):
    """A request for text, whose answer is streamed as lines of JSON."""

    shape: ClassVar[Shape]

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        self._stopwatch = Stopwatch()
        super().__init__(asked, provider)

    def translate(self, body: Mapping[str, Any], style: ThinkingStyle) -> Translated:
        self._model = str(body.get("model"))
        return _REQUESTS[self.shape](body, style)

    def translate_answer(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return completion_to_answer(
            answer, shape=self.shape, model=self._model, stopwatch=self._stopwatch
        )

    def make_stream(self) -> Stream:
        return OllamaStream(shape=self.shape, model=self._model, stopwatch=self._stopwatch)


class ChatTranslator(_AnswerTranslator):
    """A request to /api/chat."""

    shape = Shape.CHAT


class GenerateTranslator(_AnswerTranslator):
    """A request to /api/generate."""

    shape = Shape.GENERATE


class EmbedTranslator(ClientTranslator):
    """A request to /api/embed."""

    def translate(self, body: Mapping[str, Any], style: ThinkingStyle) -> Translated:
        self._model = str(body.get("model"))
        self._stopwatch = Stopwatch()
        return embed_to_embeddings(body)

    def translate_answer(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return embed_answer(answer, model=self._model, stopwatch=self._stopwatch)


class EmbeddingsTranslator(EmbedTranslator):
    """A request to /api/embeddings, the older route."""

    def translate(self, body: Mapping[str, Any], style: ThinkingStyle) -> Translated:
        return embeddings_to_embeddings(body)

    def translate_answer(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return embeddings_answer(answer)


def loaded_for_chat(fields: Fields, models: Models) -> dict[str, Any] | None:
    """Return the answer to a request to /api/chat that only loads the model; None for others."""
    return _loaded(fields, Shape.CHAT)


def loaded_for_text(fields: Fields, models: Models) -> dict[str, Any] | None:
    """Return the answer to a request to /api/generate that only loads the model."""
    return _loaded(fields, Shape.GENERATE)


def _loaded(fields: Fields, shape: Shape) -> dict[str, Any] | None:
    body = decode_fields(fields)
    if not is_load_request(body):
        return None
    return load_answer(shape=shape, model=str(body["model"]), stopwatch=Stopwatch())


def most_tokens(fields: Fields) -> int | None:
    """Return the most tokens of an answer, where a request to chat or to generate bounds them."""
    options = fields.small("options")
    most = options.get("num_predict") if isinstance(options, dict) else None
    return most if isinstance(most, int) and most > 0 else None


def check_chat(fields: Fields) -> None:
    """Raise TranslationError where a request to /api/chat cannot be translated."""
    body = decode_fields(fields)
    if "messages" not in body or not _only_loads(body):
        chat_to_chat(body)


def check_generate(fields: Fields) -> None:
    """Raise TranslationError where a request to /api/generate cannot be translated."""
    body = decode_fields(fields)
    if not _only_loads(body):
        generate_to_chat(body)


def _only_loads(body: Mapping[str, Any]) -> bool:
    require(body, "model")
    as_name(body["model"], "model")
    return is_load_request(body)


def check_embed(fields: Fields) -> None:
    """Raise TranslationError where a request to /api/embed cannot be translated."""
    embed_to_embeddings(decode_fields(fields))


def check_embeddings(fields: Fields) -> None:
    """Raise TranslationError where a request to /api/embeddings cannot be translated."""
    embeddings_to_embeddings(decode_fields(fields))
