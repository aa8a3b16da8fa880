"""Streams of requests that wait: comments, and errors before and after the first of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT
from llm_provider.server.dropped_header import DROPPED_HEADER

from ..fake import ANSWER, AUTH, KEY, MODEL, FakeEngine, error_of, serve_api, stream_of, until

STREAM: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
COMMENT = b": queued\n\n"


@pytest.fixture
async def llm(engine: FakeEngine) -> AsyncIterator[LlamaCpp]:
    """An engine that may take its time."""
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=30) as provider:
        yield provider


@asynccontextmanager
async def waiting(
    llm: LlamaCpp, keys: Path, seconds: float = 0.05, **environ: str
) -> AsyncIterator[httpx.AsyncClient]:
    environ = {"PARALLEL": "1", "CHAT_API_COMMENT_SECONDS": str(seconds)} | environ
    async with (
        serve_api(llm, keys, **environ) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        yield client


async def begun(answer: httpx.Response, chunks: AsyncIterator[bytes], count: int = 2) -> bytes:
    """The first comments of an answer."""
    received = b""
    while received.count(COMMENT) < count:
        received += await asyncio.wait_for(anext(chunks), 10)
    assert received == COMMENT * received.count(COMMENT)
    return received


async def test_a_queued_stream_gets_comments_and_then_its_answer(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async with waiting(llm, keys) as client:
        goes_on = engine.paused()
        first = asyncio.create_task(client.post(CHAT, json=STREAM))
        await until(lambda: engine.running == 1)
        async with client.stream("POST", CHAT, json=STREAM) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["X-Accel-Buffering"] == "no"
            chunks = answer.aiter_raw()
            await begun(answer, chunks)
            goes_on.set()
            rest = b"".join([chunk async for chunk in chunks])
        while rest.startswith(COMMENT):
            rest = rest.removeprefix(COMMENT)
        assert rest == stream_of()
        # The first was at the engine: its status was open until its first bytes.
        assert (await first).content == stream_of()


async def test_headers_that_a_comment_sent_name_no_dropped_parameter(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    """Which parameters the engine ignores is known when it is the request's turn."""
    async with waiting(llm, keys) as client:
        goes_on = engine.paused()
        first = asyncio.create_task(client.post(CHAT, json=STREAM | {"user": "me"}))
        await until(lambda: engine.running == 1)
        async with client.stream("POST", CHAT, json=STREAM | {"user": "me"}) as answer:
            chunks = answer.aiter_raw()
            await begun(answer, chunks)
            goes_on.set()
            rest = b"".join([chunk async for chunk in chunks])
        assert rest.endswith(stream_of())
        assert DROPPED_HEADER not in answer.headers
        assert (await first).headers[DROPPED_HEADER] == "user"


async def test_the_sdk_does_not_notice(engine: FakeEngine, llm: LlamaCpp, keys: Path) -> None:
    async with waiting(llm, keys) as client:
        goes_on = engine.paused()
        first = asyncio.create_task(client.post(CHAT, json=STREAM))
        await until(lambda: engine.running == 1)
        async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{client.base_url}/v1") as sdk:
            stream = await sdk.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            goes_on.set()
            text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(text).strip() == ANSWER
        await first


async def test_a_held_stream_gets_comments_and_an_event_of_its_failure(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    engine.loading = True
    async with waiting(llm, keys, LLM_HOLD_SECONDS="2") as client:
        async with client.stream("POST", CHAT, json=STREAM) as answer:
            received = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert answer.status_code == 200
        comments, _, event = received.rpartition(COMMENT)
        assert (comments + COMMENT).count(COMMENT) >= 2
        error = json.loads(event.strip().removeprefix(b"data: "))["error"]
        assert error["code"] == "engine_not_ready"
        assert error["message"].startswith("The engine is not ready: llamacpp is loading")
        text = (await client.get("/metrics")).text
        assert f'outcome="engine_not_ready",route="{CHAT}"}} 1.0' in text


async def test_what_fails_earlier_has_its_status(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    engine.loading = True
    async with waiting(llm, keys, seconds=30, LLM_HOLD_SECONDS="0.2") as client:
        answer = await client.post(CHAT, json=STREAM)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "engine_not_ready")


async def test_what_the_engine_refuses_has_its_status_however_long_it_takes(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async def slowly(exchange: Any) -> None:
        await asyncio.sleep(0.3)
        await exchange.answer({"error": {"message": "no"}}, 400)

    engine.on(CHAT, slowly)
    async with waiting(llm, keys) as client:
        answer = await client.post(CHAT, json=STREAM)
        assert (answer.status_code, error_of(answer)["message"]) == (400, "no")


async def test_a_whole_answer_gets_no_comments(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async with waiting(llm, keys) as client:
        goes_on = engine.paused()
        tasks = [
            asyncio.create_task(client.post(CHAT, json=STREAM | {"stream": False}))
            for _ in range(2)
        ]
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.2)
        goes_on.set()
        for task in tasks:
            assert (await task).json()["choices"][0]["message"]["content"] == ANSWER


async def test_a_client_that_leaves_while_it_gets_comments_is_not_asked_for(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async with waiting(llm, keys) as client:
        goes_on = engine.paused()
        first = asyncio.create_task(client.post(CHAT, json=STREAM))
        await until(lambda: engine.running == 1)
        async with client.stream("POST", CHAT, json=STREAM | {"seed": 2}) as answer:
            await begun(answer, answer.aiter_raw())
        for _ in range(500):
            if (await client.get("/ready")).json()["queued"] == 0:
                break
            await asyncio.sleep(0.01)
        goes_on.set()
        await first
        assert [body.get("seed") for body in engine.asked] == [None]
