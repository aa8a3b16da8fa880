"""What an engine was started for, and which routes it is asked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT, EMBEDDINGS

from ..fake import AUTH, Exchange, FakeEngine, error_of, serve_api

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("task", "path", "body", "what", "needed"),
    [
        ("embedding", CHAT, BODY, "chat", "chat"),
        ("rerank", CHAT, BODY, "chat", "chat"),
        ("rerank", "/api/chat", {"message": "Hello"}, "chat", "chat"),
        ("rerank", EMBEDDINGS, {"input": "Hello"}, "embeddings", "embedding"),
        ("chat", EMBEDDINGS, {"input": "Hello"}, "embeddings", "embedding"),
    ],
)
async def test_a_route_for_another_task_is_refused(
    engine: FakeEngine,
    llm: LlamaCpp,
    keys: Path,
    task: str,
    path: str,
    body: dict[str, Any],
    what: str,
    needed: str,
) -> None:
    async with (
        serve_api(llm, keys, LLM_TASK=task) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=20) as client,
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 501
        assert error_of(answer) == {
            "message": f"llamacpp was started for {task} and does not offer {what}. "
            f"It is served where the engine is started with LLM_TASK={needed}.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_supported_by_engine",
        }
        assert (await client.get("/ready")).json()["task"] == task
    assert engine.posts == []


async def test_a_route_of_the_task_is_asked(engine: FakeEngine, llm: LlamaCpp, keys: Path) -> None:
    async def embed(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [], "model": "smoke"})

    engine.on(EMBEDDINGS, embed)
    async with (
        serve_api(llm, keys, LLM_TASK="embedding") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=20) as client,
    ):
        answer = await client.post(EMBEDDINGS, json={"input": "Hello"})
        assert (answer.status_code, answer.json()["data"]) == (200, [])
