"""Ollama's API: /api/chat, /api/generate, /api/embed and /api/embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from llm_provider.providers.support import CHATTING, COMPLETING, EMBEDDING
from llm_provider.server.client_apis.translation import Translation
from llm_provider.server.translations.fields import as_name
from llm_provider.server.translations.ollama_embed import (
    embed_answer,
    embed_to_embeddings,
    embeddings_answer,
    embeddings_to_embeddings,
)
from llm_provider.server.translations.ollama_options import stream_fields
from llm_provider.server.translations.ollama_request import (
    bare_name,
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

CHAT = "/api/chat"
GENERATE = "/api/generate"
EMBED = "/api/embed"
EMBEDDINGS = "/api/embeddings"
LINES = b"application/x-ndjson"


class _Lines:
    """An OllamaStream; its errors are a text, and none of its lines tells a status."""

    def __init__(self, shape: Shape, model: str, stopwatch: Stopwatch) -> None:
        self._stream = OllamaStream(shape=shape, model=model, stopwatch=stopwatch)
        self.feed = self._stream.feed
        self.finish = self._stream.finish

    def fail(self, _: int, error: Mapping[str, Any]) -> bytes:
        return self._stream.fail(str(error.get("message") or "The request failed."))


def chat(body: Mapping[str, Any]) -> Translation:
    """Return the translation of a request to /api/chat. Raises TranslationError."""
    return _answered(body, Shape.CHAT)


def generate(body: Mapping[str, Any]) -> Translation:
    """Return the translation of a request to /api/generate. Raises TranslationError."""
    return _answered(body, Shape.GENERATE)


def embed(body: Mapping[str, Any]) -> Translation:
    """Return the translation of a request to /api/embed. Raises TranslationError."""
    model = as_name(body.get("model"), "model")
    stopwatch = Stopwatch()
    return Translation(
        feature=EMBEDDING,
        model=bare_name(model),
        request=_without_style(embed_to_embeddings),
        whole=partial(embed_answer, model=model, stopwatch=stopwatch),
    )


def embeddings(body: Mapping[str, Any]) -> Translation:
    """Return the translation of a request to /api/embeddings. Raises TranslationError."""
    return Translation(
        feature=EMBEDDING,
        model=bare_name(as_name(body.get("model"), "model")),
        request=_without_style(embeddings_to_embeddings),
        whole=embeddings_answer,
    )


def loaded(body: Mapping[str, Any], shape: Shape) -> dict[str, Any] | None:
    """Return the answer to a request that only loads the model; None for any other.

    Raises TranslationError for one that unloads it.
    """
    if not is_load_request(body):
        return None
    model = as_name(body.get("model"), "model")
    return load_answer(shape=shape, model=model, stopwatch=Stopwatch())


def _answered(body: Mapping[str, Any], shape: Shape) -> Translation:
    model = as_name(body.get("model"), "model")
    stopwatch = Stopwatch()
    raw = shape is Shape.GENERATE and bool(body.get("raw"))
    return Translation(
        feature=COMPLETING if raw else CHATTING,
        model=bare_name(model),
        request=chat_to_chat if shape is Shape.CHAT else generate_to_chat,
        whole=partial(completion_to_answer, shape=shape, model=model, stopwatch=stopwatch),
        stream=partial(_Lines, shape, model, stopwatch) if stream_fields(body) else None,
        stream_type=LINES,
    )


def _without_style(
    translate: Callable[[Mapping[str, Any]], Translated],
) -> Callable[[Mapping[str, Any], ThinkingStyle], Translated]:
    def request(body: Mapping[str, Any], _: ThinkingStyle) -> Translated:
        return translate(body)

    return request
