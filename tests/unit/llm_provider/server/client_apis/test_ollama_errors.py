"""The `ollama` package, unchanged, against the chat API: errors, as its own type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from llm_provider.providers.routes import CHAT

from ...fake import (
    DONE,
    MODEL,
    Exchange,
    FakeEngine,
    error_event,
    event,
)
from .engines import chat_api
from .ollama_client import ASK, client


@pytest.fixture
async def sdk(api: str) -> AsyncIterator[ollama.AsyncClient]:
    async with client(api) as made:
        yield made


async def test_a_wrong_key(api: str) -> None:
    async with client(api, "another") as sdk:
        for ask in (sdk.list(), sdk.chat(MODEL, ASK), sdk.embed(MODEL, "a"), sdk.show(MODEL)):
            with pytest.raises(ollama.ResponseError) as refused:
                await ask
            assert refused.value.status_code == 401
            assert "API key" in refused.value.error


async def test_a_route_that_is_none(sdk: ollama.AsyncClient, client: httpx.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        await sdk.pull("smollm2")
    assert refused.value.status_code == 404
    assert refused.value.error == "POST /api/pull: Not Found."
    answer = await client.post("/api/tags")
    assert (answer.status_code, answer.json()) == (
        405,
        {"error": "POST /api/tags: Method Not Allowed."},
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": ""}, "'model'"),
        ({"messages": [{"role": "x"}]}, "'messages.0.role' is invalid: 'x'"),
        ({"options": {"temperature": "hot"}}, "'options.temperature' is invalid: a string"),
        ({"stream": "yes"}, "'stream' is invalid"),
        ({"model": "gpt-5"}, "served: smoke"),
    ],
)
async def test_a_request_that_is_none(
    engine: FakeEngine, client: httpx.AsyncClient, changed: dict[str, Any], words: str
) -> None:
    answer = await client.post("/api/chat", json={"model": MODEL, "messages": ASK} | changed)
    assert answer.status_code == (404 if "served" in words else 400)
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]
    assert engine.posts == []


async def test_a_body_that_is_too_large(keys: Path) -> None:
    async with (
        chat_api("llamacpp", keys, CHAT_API_MAX_BODY_BYTES="100000") as (_, url),
        client(url) as sdk,
    ):
        with pytest.raises(ollama.ResponseError) as refused:
            await sdk.chat(MODEL, [{"role": "user", "content": "x" * 200_000}])
    assert refused.value.status_code == 413
    assert "at most 100000 are accepted" in refused.value.error


async def test_a_full_queue(engine: FakeEngine, sdk: ollama.AsyncClient) -> None:
    goes_on = engine.paused()
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(sdk.chat(MODEL, ASK)) for _ in range(2 + 64 + 1)
    ]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=60)
    (refused,) = done
    error = refused.exception()
    assert isinstance(error, ollama.ResponseError)
    assert error.status_code == 429
    assert "wait" in error.error
    goes_on.set()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("status", "told"), [(400, 400), (500, 502), (503, 503)])
async def test_an_engines_refusal(
    engine: FakeEngine, sdk: ollama.AsyncClient, status: int, told: int, streamed: bool
) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "too odd"}}, status))
    with pytest.raises(ollama.ResponseError, match="too odd") as refused:
        options: dict[str, Any] = {"stream": streamed}
        answer: Any = await sdk.chat(MODEL, ASK, **options)
        if streamed:
            await anext(answer)
    assert refused.value.status_code == told
    assert engine.url not in str(refused.value)


@pytest.mark.parametrize("how", ["cut", "an error event", "no reason"])
async def test_a_stream_that_breaks_off(
    engine: FakeEngine, sdk: ollama.AsyncClient, how: str
) -> None:
    last = {
        "cut": b"",
        "an error event": error_event("Context size has been exceeded at http://10.0.0.7:8080."),
        "no reason": DONE,
    }[how]

    async def breaks(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        if last:
            await exchange.chunk(last)
            await exchange.chunk(b"")

    engine.on(CHAT, breaks)
    texts = []
    with pytest.raises(ollama.ResponseError) as failed:
        async for part in await sdk.chat(MODEL, ASK, stream=True):
            texts.append(part.message.content)
    assert texts == ["Hel"]
    words = {
        "cut": "broke the connection",
        "an error event": "Context size has been exceeded at [address].",
        "no reason": "broke off before its end",
    }[how]
    assert words in failed.value.error
