"""What an engine was started for, and which routes it is asked at."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT, EMBEDDINGS

from ..fake import AUTH, Exchange, FakeEngine, error_of, serve_api
from .crowd import EngineFile, numbered, repointable, reported

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
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
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
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        answer = await client.post(EMBEDDINGS, json={"input": "Hello"})
        assert (answer.status_code, answer.json()["data"]) == (200, [])


REFUSED = (
    "llamacpp was started for embedding and does not offer {}. "
    "It is served where the engine is started with LLM_TASK=chat."
)


@pytest.fixture
def file(tmp_path: Path, engine: FakeEngine) -> EngineFile:
    """LLM_ENGINE_FILE, which holds the requests for `engine`."""
    made = EngineFile(tmp_path / "engine")
    made.point(engine, "LLM_HOLD=60")
    return made


@pytest.mark.parametrize(
    ("path", "more", "what"),
    [
        (CHAT, {}, "chat"),
        (CHAT, {"stream": True}, "chat"),
        ("/v1/messages", {"model": "default", "max_tokens": 8}, "chat"),
        ("/api/chat", {"model": "default"}, "chat"),
        ("/apply-template", {}, "the chat template"),
    ],
)
async def test_a_held_request_is_refused_by_an_engine_for_another_task(
    engine: FakeEngine, file: EngineFile, keys: Path, path: str, more: dict[str, Any], what: str
) -> None:
    async with repointable(file, keys) as client:
        await reported(client, "holding", True)
        asking = asyncio.create_task(client.post(path, json=BODY | more))
        await numbered(client, (0, 0, 1))
        file.point(engine, "LLM_TASK=embedding")
        answer = await asking
        await numbered(client, (0, 0, 0))
    assert answer.status_code == 501
    assert answer.headers["x-should-retry"] == "false"
    assert REFUSED.format(what) in answer.text
    assert engine.posts == []


async def test_a_held_stream_with_comments_is_told_of_another_task(
    engine: FakeEngine, file: EngineFile, keys: Path
) -> None:
    async with repointable(file, keys, CHAT_API_COMMENT_SECONDS="0.05") as client:
        await reported(client, "holding", True)
        async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
            assert answer.status_code == 200  # it has begun: a comment came
            lines = answer.aiter_lines()
            assert await anext(lines) == ": queued"
            file.point(engine, "LLM_TASK=embedding")
            events = [line async for line in lines if line.startswith("data: ")]
    assert len(events) == 1, events
    error = json.loads(events[0].removeprefix("data: "))["error"]
    assert (error["message"], error["code"]) == (REFUSED.format("chat"), "not_supported_by_engine")
    assert engine.posts == []


async def test_a_held_request_is_put_to_an_engine_for_the_same_task(
    engine: FakeEngine, file: EngineFile, keys: Path
) -> None:
    async def embed(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [], "model": "smoke"})

    engine.on(EMBEDDINGS, embed)
    file.point(engine, "LLM_HOLD=60", "LLM_TASK=embedding")
    async with (
        FakeEngine().serving() as other,
        repointable(file, keys) as client,
    ):
        other.on(EMBEDDINGS, embed)
        await reported(client, "holding", True)
        asking = asyncio.create_task(client.post(EMBEDDINGS, json={"input": "Hello"}))
        await numbered(client, (0, 0, 1))
        file.point(other, "LLM_TASK=embedding")
        assert (await asking).status_code == 200
        assert [exchange.path for exchange in other.posts] == [EMBEDDINGS]
    assert engine.posts == []
