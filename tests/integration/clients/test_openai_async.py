"""The openai package: its asynchronous client, also on aiohttp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

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
    works_on,
)
from tests.integration.engines.conftest import House
from tests.integration.engines.serving import Served

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": STORY}]


@asynccontextmanager
async def sdk(
    served: Served, key: str = KEY, aiohttp: bool = False
) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAioHttpClient() if aiohttp else openai.DefaultAsyncHttpxClient()
    async with openai.AsyncOpenAI(
        base_url=f"{served.api.base_url}/v1", api_key=key, max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.mark.parametrize("aiohttp", [False, True], ids=["httpx", "aiohttp"])
async def test_chat(smoke: Served, aiohttp: bool) -> None:
    async with sdk(smoke, aiohttp=aiohttp) as client:
        answer = await client.chat.completions.create(model="smoke", messages=HELLO)
        stream = await client.chat.completions.create(model="smoke", messages=HELLO, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    assert answer.choices[0].message.content == smoke.answer
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(piece or "" for piece in pieces) == smoke.answer


async def test_a_tool(tools: Served) -> None:
    async with sdk(tools) as client:
        answer = await client.chat.completions.create(
            model="tools", messages=HELLO, tools=[WEATHER]
        )
        stream = await client.chat.completions.create(
            model="tools", messages=HELLO, tools=[WEATHER], stream=True
        )
        deltas = [each.delta async for chunk in stream for each in chunk.choices]
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", CALL)
    parts = [part.function for delta in deltas for part in delta.tool_calls or []]
    assert [part.name for part in parts if part and part.name] == ["get_weather"]
    assert json.loads("".join(part.arguments or "" for part in parts if part)) == CALL


async def test_a_structured_answer(smollm2: Served) -> None:
    async with (
        sdk(smollm2) as client,
        client.chat.completions.stream(
            model="default",
            messages=[{"role": "user", "content": QUESTION}],
            response_format=Place,
            temperature=0,
            max_tokens=80,
        ) as stream,
    ):
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert len(deltas) > 2
    assert final.choices[0].message.parsed == PARIS


async def test_responses(smoke: Served) -> None:
    async with sdk(smoke) as client:
        answer = await client.responses.create(model="smoke", input="Hello")
        stream = await client.responses.create(model="smoke", input="Hello", stream=True)
        events = [event async for event in stream]
    assert answer.output_text.strip() == smoke.answer
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas).strip() == smoke.answer


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_embeddings(house: House, name: str) -> None:
    served = await asyncio.to_thread(embedder, house, name)
    async with sdk(served) as client:
        answer = await client.embeddings.create(
            model="default", input="The cat", encoding_format="float"
        )
    assert [len(each.embedding) for each in answer.data] == [WIDTH]


async def test_errors_are_of_its_own_types(smoke: Served) -> None:
    async with sdk(smoke, "another-key") as client:
        with pytest.raises(openai.AuthenticationError) as key:
            await client.chat.completions.create(model="smoke", messages=HELLO, stream=True)
    assert key.value.code == "invalid_api_key"
    async with sdk(smoke) as client:
        with pytest.raises(openai.NotFoundError) as model:
            await client.models.retrieve("gpt-5")
        assert model.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as size:
            await client.chat.completions.create(
                model="smoke", messages=[{"role": "user", "content": TOO_LONG}]
            )
        assert size.value.code == "context_length_exceeded"


async def test_cancelling_stops_the_engine(smollm2: Served) -> None:
    await asyncio.to_thread(works_on, smollm2, 0)
    async with sdk(smollm2) as client:
        asking = asyncio.create_task(client.chat.completions.create(model="default", messages=LONG))
        await asyncio.to_thread(works_on, smollm2, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(works_on, smollm2, 0)
        stream = await client.chat.completions.create(model="default", messages=LONG, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        assert await asyncio.to_thread(smollm2.engine.busy) == 1
        await stream.close()
        await asyncio.to_thread(works_on, smollm2, 0)
