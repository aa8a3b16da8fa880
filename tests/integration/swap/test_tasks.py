"""A change between models for chat, embeddings and reranking is a change as any other."""

from __future__ import annotations

from typing import Any

import httpx

from sandbox.smoke_encoder import EMBEDDING, RERANK, WIDTH
from tests.integration.load import Board
from tests.playing import play

_EMBEDDING = {"llm_provider": "llamacpp", "llm_model": EMBEDDING.name}
_RERANK = {"llm_provider": "llamacpp", "llm_model": RERANK.name}


def asked(board: Board, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {board.key}"}
    return httpx.post(f"{board.url}{path}", json=body, headers=headers, timeout=120)


def changed(board: Board, **given: Any) -> dict[str, Any]:
    """What the history says of a change to these variables, which is committed."""
    before = len(board.history())
    done = play("site.yml", board.name, **given)
    assert done.returncode == 0, done.stdout
    (told,) = board.history()[before:]
    assert told["outcome"] == "committed", told
    return told


def test_from_chat_to_embeddings_to_reranking_and_back(board: Board, settled: None) -> None:
    # Ollama is what the inventory has, and embeds a text at a time.
    changed(board, llm_model=EMBEDDING.name)
    assert (board.ready()["provider"], board.ready()["parallel"]) == ("ollama", 1)
    answer = asked(board, "/v1/embeddings", {"input": ["The cat eats fish", "Rain"]})
    assert [len(each["embedding"]) for each in answer.json()["data"]] == [WIDTH] * 2

    told = changed(board, **_EMBEDDING)
    assert told["parts"] == ["engine"]
    again = asked(board, "/v1/embeddings", {"input": ["The cat eats fish", "Rain"]})
    for one, other in zip(answer.json()["data"], again.json()["data"], strict=True):
        pairs = zip(one["embedding"], other["embedding"], strict=True)
        assert all(abs(left - right) < 0.01 for left, right in pairs)
    question = {"messages": [{"role": "user", "content": "Hello"}]}
    refused = asked(board, "/v1/chat/completions", question)
    assert refused.status_code == 501, refused.text
    assert "LLM_TASK=chat" in refused.json()["error"]["message"]

    changed(board, **_RERANK)
    assert "LLM_TASK=rerank" in board.run("cat", "/opt/edge-llm/engine/engine.env")
    body = {
        "query": "What does the cat eat?",
        "documents": ["The river is green.", "The cat eats fish."],
    }
    results = asked(board, "/v1/rerank", body).json()["results"]
    assert [each["index"] for each in results] == [1, 0]

    done = play("playbooks/rollback.yml", board.name)
    assert done.returncode == 0, done.stdout
    assert board.ready()["model"] == EMBEDDING.name
    changed(board)
    assert "LLM_TASK" not in board.run("cat", "/opt/edge-llm/engine/engine.env")
    assert board.asked() == "The capital of France is Paris."
