"""The table of what engines offer."""

from __future__ import annotations

import re

import pytest

from llm_provider.errors import Unsupported
from llm_provider.providers import support
from llm_provider.providers.selection import PROVIDERS
from llm_provider.providers.settings import Task
from llm_provider.providers.support import FEATURES, Feature


def test_every_engine_of_the_table_is_one() -> None:
    for feature in FEATURES:
        assert feature.paths
        assert set(feature.paths) <= set(PROVIDERS)
        assert feature.tasks
        assert all(path.startswith("/") for path in feature.paths.values())
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)


def test_every_feature_is_in_the_table() -> None:
    found = [value for value in vars(support).values() if isinstance(value, Feature)]
    assert found == list(FEATURES)


def test_a_path() -> None:
    assert support.RERANKING.path("llamacpp", Task.RERANK) == "/v1/rerank"
    assert support.COUNTING_TOKENS.path("llamacpp", Task.CHAT) == "/apply-template"
    assert support.COUNTING_TOKENS.path("vllm", Task.CHAT) == "/tokenize"
    for task in Task:
        assert support.TOKENIZING.path("vllm", task) == "/tokenize"


@pytest.mark.parametrize(
    ("feature", "engine", "task", "sentence"),
    [
        (
            support.RERANKING,
            "ollama",
            Task.RERANK,
            "ollama does not offer reranking. It is served where the engine is llamacpp or vllm.",
        ),
        (
            support.INFILLING,
            "vllm",
            Task.EMBEDDING,  # both are wrong, and another task would not help
            "vllm does not offer infill. It is served where the engine is llamacpp.",
        ),
        (
            support.EMBEDDING,
            "ollama",
            Task.CHAT,
            "ollama was started for chat and does not offer embeddings. "
            "It is served where the engine is started with LLM_TASK=embedding.",
        ),
        (
            support.CHATTING,
            "llamacpp",
            Task.EMBEDDING,
            "llamacpp was started for embedding and does not offer chat. "
            "It is served where the engine is started with LLM_TASK=chat.",
        ),
    ],
)
def test_what_an_engine_does_not_offer(
    feature: Feature, engine: str, task: Task, sentence: str
) -> None:
    with pytest.raises(Unsupported, match=f"^{re.escape(sentence)}$") as refused:
        feature.path(engine, task)
    assert refused.value.param is None
