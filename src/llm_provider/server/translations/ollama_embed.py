"""Ollama's /api/embed and /api/embeddings, as OpenAI's /v1/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import (
    as_integer,
    as_list,
    as_name,
    as_object,
    as_text,
    as_texts,
    require,
)
from llm_provider.server.translations.ollama_options import unread_names
from llm_provider.server.translations.ollama_request import bare_name
from llm_provider.server.translations.ollama_response import Stopwatch
from llm_provider.server.translations.openai_format import EMBEDDINGS, Translated, UsageReader


def embed_to_embeddings(body: Mapping[str, Any]) -> Translated:
    """Translate a body of POST /api/embed: one text or several. Raises TranslationError."""
    require(body, "model", "input")
    value = body["input"]
    texts = [value] if isinstance(value, str) else as_texts(value, "input")
    translated = _translated(body, texts, ("model", "input", "options", "dimensions"))
    if body.get("dimensions"):
        translated.body["dimensions"] = as_integer(body["dimensions"], "dimensions")
    return translated


def embeddings_to_embeddings(body: Mapping[str, Any]) -> Translated:
    """Translate a body of POST /api/embeddings, the older route: one text."""
    require(body, "model", "prompt")
    texts = [as_text(body["prompt"], "prompt")]
    return _translated(body, texts, ("model", "prompt", "options"))


def embed_answer(answer: Mapping[str, Any], *, model: str, stopwatch: Stopwatch) -> dict[str, Any]:
    """Translate the answer of /v1/embeddings for /api/embed."""
    counts = UsageReader()
    counts.feed(answer)
    return {
        "model": model,
        "embeddings": _vectors(answer),
        "total_duration": stopwatch.elapsed,
        "load_duration": 0,
        "prompt_eval_count": counts.usage.prompt,
    }


def embeddings_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the answer of /v1/embeddings for /api/embeddings."""
    return {"embedding": _vectors(answer)[0]}


def _translated(body: Mapping[str, Any], texts: list[str], read: tuple[str, ...]) -> Translated:
    if not texts or not all(texts):
        name = "input" if "input" in read else "prompt"
        raise TranslationError(name, f"'{name}' is invalid: it is empty. Send a text.")
    options = as_object(body.get("options") or {}, "options")
    dropped = (*unread_names(body, read), *(f"options.{name}" for name in options))
    sent = {
        "model": bare_name(as_name(body["model"], "model")),
        "input": texts,
        "encoding_format": "float",
    }
    return Translated(sent, dropped, EMBEDDINGS)


def _vectors(answer: Mapping[str, Any]) -> list[list[float]]:
    """Return the vectors in the order of the texts, whatever the answer's order."""
    entries = [as_object(entry, "data") for entry in as_list(answer.get("data"), "data")]
    entries.sort(key=lambda entry: as_integer(entry.get("index", 0), "data.index"))
    vectors = [as_list(entry.get("embedding"), "data.embedding") for entry in entries]
    if not vectors:
        raise TranslationError("data", "The engine answered without an embedding.")
    return vectors
