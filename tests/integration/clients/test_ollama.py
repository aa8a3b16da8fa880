"""The ollama package."""

from __future__ import annotations

import asyncio
from typing import Any

import ollama
import pytest

from tests.integration.clients.asking import (
    CALL,
    EMBEDDERS,
    KEY,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    WEATHER,
    WIDTH,
    Place,
    embedder,
    stops_when_cancelled,
)
from tests.integration.engines.conftest import House
from tests.integration.engines.serving import Served

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def client(served: Served, key: str = KEY) -> ollama.AsyncClient:
    return ollama.AsyncClient(served.api.base_url, headers=headers(key))


def test_the_synchronous_client(smoke: Served) -> None:
    made = ollama.Client(smoke.api.base_url, headers=headers(KEY))
    assert made.chat("smoke", HELLO).message.content == smoke.answer
    pieces = [part.response for part in made.generate("smoke", "Hello", stream=True)]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(piece or "" for piece in pieces) == smoke.answer
    assert "smoke:latest" in [model.model for model in made.list().models]


def test_its_own_variables_name_the_chat_api(
    smoke: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    monkeypatch.setenv("OLLAMA_HOST", smoke.api.base_url)
    assert ollama.Client().chat("default", HELLO).message.content == smoke.answer


async def test_a_stream(smoke: Served) -> None:
    async with client(smoke) as made:
        parts = [part async for part in await made.chat("smoke:latest", HELLO, stream=True)]
    pieces = [part.message.content for part in parts]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(piece or "" for piece in pieces) == smoke.answer
    assert (parts[-1].done, parts[-1].done_reason) == (True, "stop")
    assert (parts[-1].eval_count or 0) >= 8


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_tool(tools: Served, streamed: bool) -> None:
    async with client(tools) as made:
        if streamed:
            stream = await made.chat("default", HELLO, tools=[WEATHER], stream=True)
            parts = [part async for part in stream]
        else:
            parts = [await made.chat("default", HELLO, tools=[WEATHER])]
    calls = [call.function for part in parts for call in part.message.tool_calls or []]
    assert [(call.name, call.arguments) for call in calls] == [("get_weather", CALL)]


async def test_a_structured_answer(smollm2: Served) -> None:
    async with client(smollm2) as made:
        answer = await made.chat(
            "default",
            [{"role": "user", "content": QUESTION}],
            format=Place.model_json_schema(),
            options={"temperature": 0, "num_predict": 80},
        )
    assert Place.model_validate_json(answer.message.content or "") == PARIS


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_embeddings(house: House, name: str) -> None:
    served = await asyncio.to_thread(embedder, house, name)
    async with client(served) as made:
        answer = await made.embed("default", ["The cat", "The dog"])
    assert [len(vector) for vector in answer.embeddings] == [WIDTH] * 2


async def test_errors_are_of_its_own_type(smoke: Served) -> None:
    async with client(smoke, "another-key") as made:
        with pytest.raises(ollama.ResponseError, match="key") as key:
            await made.chat("smoke", HELLO)
    assert key.value.status_code == 401
    async with client(smoke) as made:
        with pytest.raises(ollama.ResponseError, match="smoke") as model:
            await made.chat("llama3", HELLO)
        assert model.value.status_code == 404
        for streamed in (False, True):
            with pytest.raises(ollama.ResponseError, match="context") as size:
                await whole(made, TOO_LONG, streamed)
            assert size.value.status_code == 400


async def whole(made: ollama.AsyncClient, text: str, streamed: bool) -> None:
    """Ask, and read the answer to its end."""
    messages = [{"role": "user", "content": text}]
    if streamed:
        async for _ in await made.chat("default", messages, stream=True):
            await asyncio.sleep(0)
    else:
        await made.chat("default", messages)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_cancelling_stops_the_engine(smollm2: Served, streamed: bool) -> None:
    async def ask() -> None:
        async with client(smollm2) as made:
            await whole(made, STORY, streamed)

    await stops_when_cancelled(smollm2, ask())
