"""Embeddings: the answer of OpenAI's /v1/embeddings as vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_provider.errors import MalformedAnswer


@dataclass(frozen=True)
class Embeddings:
    """A vector for each text, in the order of the texts.

    `model` is the name that the engine gave, `prompt_tokens` the tokens of all texts; None where it
    does not tell.
    """

    vectors: list[list[float]]
    model: str | None = None
    prompt_tokens: int | None = None


def read_embeddings(answer: Mapping[str, Any], count: int) -> Embeddings:
    """Return the vectors of an answer to `count` texts. Raises MalformedAnswer."""
    entries = answer.get("data")
    if not isinstance(entries, list) or len(entries) != count:
        found = len(entries) if isinstance(entries, list) else "no list"
        raise MalformedAnswer(
            f"The embeddings do not fit: {found} for {count} texts. "
            "Look at what the engine answers to /v1/embeddings."
        )
    vectors: dict[int, list[float]] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_vector(entry.get("embedding")):
            raise MalformedAnswer(
                f"The embedding {position} is invalid: it is no list of numbers. "
                "Leave 'encoding_format' out."
            )
        vectors[entry.get("index", position)] = entry["embedding"]
    if vectors.keys() != set(range(count)):
        raise MalformedAnswer(f"The embeddings do not fit: their indexes are {list(vectors)}.")
    usage, model = answer.get("usage"), answer.get("model")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Embeddings(
        [vectors[index] for index in range(count)],
        model if isinstance(model, str) else None,
        tokens if isinstance(tokens, int) else None,
    )


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )
