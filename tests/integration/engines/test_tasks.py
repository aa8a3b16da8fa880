"""Models for embeddings and reranking, on engines that were started for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Any

import pytest

from llm_provider.cli.check import Wanted, check
from sandbox.smoke_encoder import CONTEXT, EMBEDDING, RERANK, WIDTH
from tests.integration.engines.conftest import House
from tests.integration.engines.serving import CHAT, KEY, Served

CASES = {
    "llamacpp-embedding": ("llamacpp", EMBEDDING.name, 4),
    # It embeds a text at a time.
    "ollama-embedding": ("ollama", EMBEDDING.name, 1),
    "llamacpp-rerank": ("llamacpp", RERANK.name, 4),
}
DOCUMENTS = [
    "The river is green.",
    "The capital of France is Paris.",
    "The cat eats fish in the evening.",
]


def served(house: House, case: str) -> Served:
    name, model, parallel = CASES[case]
    return house.served(name, model, CONTEXT, parallel)


async def answer_of(served: Served, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with served.api.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(map(mul, one, other)) / (math.hypot(*one) * math.hypot(*other))


@pytest.mark.parametrize("case", CASES)
async def test_the_check_of_a_release_passes(house: House, case: str) -> None:
    made = served(house, case)
    engine = made.engine
    report = await check(
        made.api.base_url,
        KEY,
        Wanted(
            provider=engine.provider,
            model=engine.model,
            task=engine.task,
            dimensions=WIDTH if engine.task == "embedding" else None,
            context_size=CONTEXT,
            parallel=engine.parallel,
        ),
    )
    assert [each for each in report.checks if not each.ok] == []


@pytest.mark.parametrize("case", ["llamacpp-embedding", "ollama-embedding"])
async def test_texts_that_share_words_are_near(house: House, case: str) -> None:
    texts = ["The cat eats fish", "The dog eats fish", "Rain on the river", "The cat eats fish"]
    answer = await answer_of(served(house, case), "/v1/embeddings", {"input": texts})
    entries = sorted(answer["data"], key=lambda entry: int(entry["index"]))
    vectors = [entry["embedding"] for entry in entries]
    assert [len(vector) for vector in vectors] == [WIDTH] * len(texts)
    near, far, same = (cosine(vectors[0], vector) for vector in vectors[1:])
    assert same == pytest.approx(1, abs=0.001)
    assert near == pytest.approx(0.833, abs=0.01)
    assert far < 0.6
    assert answer["usage"]["prompt_tokens"] > len(texts)


async def test_the_query_decides_which_document_is_first(house: House) -> None:
    made = served(house, "llamacpp-rerank")
    for query, best in (
        ("What is the capital of France?", 1),
        ("What does the cat eat in the evening?", 2),
    ):
        body = {"query": query, "documents": DOCUMENTS}
        results = (await answer_of(made, "/v1/rerank", body))["results"]
        assert results[0]["index"] == best
        scores = [entry["relevance_score"] for entry in results]
        assert sorted(scores, reverse=True) == scores


async def test_a_text_that_is_too_long_is_refused_with_figures(house: House) -> None:
    """Ollama cuts it off instead, as it says of itself."""
    made = served(house, "llamacpp-embedding")
    async with made.api.client() as client:
        answer = await client.post("/v1/embeddings", json={"input": "cat " * (CONTEXT + 10)})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (CONTEXT + 12, CONTEXT)


@pytest.mark.parametrize("case", CASES)
async def test_no_chat_is_had_of_them(house: House, case: str) -> None:
    async with served(house, case).api.client() as client:
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        answer = await client.post(CHAT, json=body)
    assert answer.status_code == 501
    assert answer.json()["error"]["code"] == "not_supported_by_engine"
