"""Checks of models that do not chat: the vectors of an embedding model, the order of a reranker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_provider.cli.check_failure import Failed

EMBEDDING_TEXTS = (
    "The capital of France is Paris.",
    "A cat sleeps on the sofa.",
    "The capital of France is Paris.",
)
"""Texts to embed, of which the first and the last are the same."""
QUERY = "What is the capital of France?"
DOCUMENTS = (
    "A cat sleeps on the sofa.",
    "The capital of France is Paris.",
    "The river is green.",
)
"""Documents to rank by QUERY."""
_ANSWER = 1
# The same text in another place of a batch is computed a little differently.
_SAME = 0.999


def check_vectors(answer: Mapping[str, Any], dimensions: int | None) -> str:
    """Say what the embeddings of EMBEDDING_TEXTS are (an answer of /v1/embeddings).

    Raises Failed unless each is a vector of `dimensions` numbers (None: any number), the same for
    the same text and another for another.
    """
    vectors = _vectors(answer)
    lengths = sorted({len(vector) for vector in vectors})
    if dimensions is not None and lengths != [dimensions]:
        raise Failed(f"vectors of {_join(lengths)} numbers, not of {dimensions}")
    if len(lengths) != 1:
        raise Failed(f"vectors of different lengths: {_join(lengths)} numbers")
    first, other, again = vectors
    same, different = _cosine(first, again), _cosine(first, other)
    if same < _SAME:
        raise Failed(f"two vectors of the same text, with a cosine of {same:.3f}")
    if different >= _SAME:
        raise Failed(f"the same vector for different texts, with a cosine of {different:.3f}")
    return f"vectors of {lengths[0]} numbers; cosine of two texts {different:.3f}"


def check_ranking(answer: Mapping[str, Any]) -> str:
    """Say how DOCUMENTS are ranked by QUERY (an answer of /v1/rerank).

    Raises Failed unless each has a score, and the one that answers QUERY the highest.
    """
    scores = _scores(answer)
    best = max(scores, key=lambda index: scores[index])
    shown = ", ".join(f"{scores[index]:.3f}" for index in sorted(scores))
    if best != _ANSWER or list(scores.values()).count(scores[best]) > 1:
        raise Failed(
            f"scores of {shown}: the document that answers the query, number {_ANSWER + 1}, has"
            " not the highest"
        )
    return f"the document that answers the query is first; scores of {shown}"


def _vectors(answer: Mapping[str, Any]) -> list[Sequence[float]]:
    """The vectors by the number of their text."""
    found = _by_index(answer.get("data"), "embedding", len(EMBEDDING_TEXTS), "vectors")
    for vector in found:
        if not isinstance(vector, list) or not vector or not all(map(_is_number, vector)):
            raise Failed("a vector that is not a list of finite numbers")
        if not any(vector):
            raise Failed("a vector with zeros only")
    return found


def _scores(answer: Mapping[str, Any]) -> dict[int, float]:
    """The scores by the number of their document."""
    found = _by_index(answer.get("results"), "relevance_score", len(DOCUMENTS), "scores")
    if not all(map(_is_number, found)):
        raise Failed("a score that is not a finite number")
    return dict(enumerate(found))


def _by_index(entries: object, key: str, count: int, what: str) -> list[Any]:
    """What entries have under `key`, in the order of their index."""
    found = {
        entry.get("index"): entry.get(key)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    }
    if sorted(found, key=str) != list(range(count)):
        raise Failed(f"{len(found)} {what}, not one for each of {count} inputs")
    return [found[index] for index in range(count)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = math.fsum(left * right for left, right in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def _join(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
