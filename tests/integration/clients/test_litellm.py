"""LiteLLM: its providers for OpenAI's, Anthropic's and Ollama's APIs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
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

PROVIDERS = {"openai": "/v1", "anthropic": "", "ollama_chat": ""}
"""LiteLLM's name of an API -> the path of its base URL."""
# It keeps connections for later calls, and they belong to the loop that opened them.
pytestmark = pytest.mark.asyncio(loop_scope="module")
EVERY = pytest.mark.parametrize("provider", PROVIDERS)


def asked(served: Served, provider: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "model": f"{provider}/default",
        "api_base": f"{served.api.base_url}{PROVIDERS[provider]}",
        "api_key": KEY,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 2000,
        "max_retries": 0,
        **more,
    }


@EVERY
async def test_chat(smoke: Served, provider: str) -> None:
    body = asked(smoke, provider, "Hello")
    answer = await asyncio.to_thread(litellm.completion, **body)
    assert answer.choices[0].message.content == smoke.answer
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens >= 8
    answer = await litellm.acompletion(**body)
    assert answer.choices[0].message.content == smoke.answer


@EVERY
async def test_a_stream(smoke: Served, provider: str) -> None:
    stream = await litellm.acompletion(**asked(smoke, provider, "Hello", stream=True))
    pieces = [chunk.choices[0].delta.content async for chunk in stream]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(piece or "" for piece in pieces) == smoke.answer


@EVERY
async def test_a_tool(tools: Served, provider: str) -> None:
    answer = await litellm.acompletion(**asked(tools, provider, "Will it rain?", tools=[WEATHER]))
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == CALL


@pytest.mark.parametrize("provider", ["openai", "ollama_chat"])
async def test_a_structured_answer(smollm2: Served, provider: str) -> None:
    body = asked(smollm2, provider, QUESTION, response_format=Place, temperature=0)
    answer = await litellm.acompletion(**body | {"max_tokens": 80})
    assert Place.model_validate_json(answer.choices[0].message.content) == PARIS


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_embeddings(house: House, name: str) -> None:
    served = await asyncio.to_thread(embedder, house, name)
    answer = await litellm.aembedding(
        model="openai/default",
        api_base=f"{served.api.base_url}/v1",
        api_key=KEY,
        input=["The cat", "The dog"],
    )
    assert [len(each["embedding"]) for each in answer.data] == [WIDTH] * 2


@EVERY
async def test_errors_are_of_its_own_types(smoke: Served, provider: str) -> None:
    with pytest.raises(litellm.AuthenticationError):
        await litellm.acompletion(**asked(smoke, provider, "Hello") | {"api_key": "another-key"})
    with pytest.raises(litellm.BadRequestError, match="context"):
        await litellm.acompletion(**asked(smoke, provider, TOO_LONG))


async def test_a_context_that_is_too_small_has_a_type_of_its_own(smoke: Served) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        await litellm.acompletion(**asked(smoke, "openai", TOO_LONG))


@EVERY
async def test_cancelling_a_stream_stops_the_engine(smollm2: Served, provider: str) -> None:
    async def read() -> None:
        async for _ in await litellm.acompletion(**asked(smollm2, provider, STORY, stream=True)):
            pass

    await stops_when_cancelled(smollm2, read())
