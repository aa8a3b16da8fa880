"""The anthropic package."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from tests.integration.clients.asking import (
    CALL,
    KEY,
    STORY,
    TOO_LONG,
    Weather,
    stops_when_cancelled,
)
from tests.integration.engines.serving import Served

TOOL: Any = {
    "name": "get_weather",
    "description": "The weather of the next days",
    "input_schema": Weather.model_json_schema(),
}


def sdk(served: Served, key: str = KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=served.api.base_url, api_key=key, max_retries=0)


def asked(text: str = "Hello") -> Any:
    return {
        "model": "default",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": text}],
    }


def test_the_synchronous_client(smoke: Served) -> None:
    with anthropic.Anthropic(base_url=smoke.api.base_url, api_key=KEY, max_retries=0) as client:
        message = client.messages.create(**asked())
        with client.messages.stream(**asked()) as stream:
            pieces = list(stream.text_stream)
    assert message.content[0].type == "text"
    assert message.content[0].text == smoke.answer
    assert message.stop_reason == "end_turn"
    assert len(pieces) > 2
    assert "".join(pieces) == smoke.answer


async def test_a_stream(smoke: Served) -> None:
    async with sdk(smoke) as client, client.messages.stream(**asked()) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert kinds.count("text") > 2
    assert final.content[0].type == "text"
    assert final.content[0].text == smoke.answer
    assert final.usage.output_tokens >= 8


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_tool(tools: Served, streamed: bool) -> None:
    async with sdk(tools) as client:
        if streamed:
            async with client.messages.stream(**asked(), tools=[TOOL]) as stream:
                message: Any = await stream.get_final_message()
        else:
            message = await client.messages.create(**asked(), tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("get_weather", CALL)


async def test_errors_are_of_its_own_types(smoke: Served) -> None:
    async with sdk(smoke, "another-key") as client:
        with pytest.raises(anthropic.AuthenticationError) as key:
            await client.messages.create(**asked())
    assert isinstance(key.value.body, dict)
    assert key.value.body["error"]["type"] == "authentication_error"
    async with sdk(smoke) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**asked() | {"model": "claude-of-another-house"})
        with pytest.raises(anthropic.BadRequestError) as size:
            await client.messages.create(**asked(TOO_LONG))
    assert isinstance(size.value.body, dict)
    assert size.value.body["error"]["type"] == "invalid_request_error"
    assert "context" in str(size.value)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_cancelling_stops_the_engine(smollm2: Served, streamed: bool) -> None:
    async def ask() -> None:
        async with sdk(smollm2) as client:
            if not streamed:
                await client.messages.create(**asked(STORY))
                return
            async with client.messages.stream(**asked(STORY)) as stream:
                async for _ in stream.text_stream:
                    await asyncio.sleep(0)

    await stops_when_cancelled(smollm2, ask())
