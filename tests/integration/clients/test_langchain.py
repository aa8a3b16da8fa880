"""LangChain: its models for OpenAI's, Anthropic's and Ollama's APIs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anthropic
import ollama
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

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

Maker = Callable[[Served, str], BaseChatModel]


def by_openai(served: Served, key: str = KEY) -> BaseChatModel:
    url = f"{served.api.base_url}/v1"
    return ChatOpenAI(
        model="default", base_url=url, api_key=key, max_retries=0, temperature=0, max_tokens=2000
    )


def by_anthropic(served: Served, key: str = KEY) -> BaseChatModel:
    return ChatAnthropic(
        model="default",
        base_url=served.api.base_url,
        api_key=key,
        max_retries=0,
        temperature=0,
        max_tokens=2000,
    )


def by_ollama(served: Served, key: str = KEY) -> BaseChatModel:
    headers = {"headers": {"Authorization": f"Bearer {key}"}}
    return ChatOllama(
        model="default",
        base_url=served.api.base_url,
        client_kwargs=headers,
        temperature=0,
        num_predict=2000,
    )


# It keeps connections for later calls, and they belong to the loop that opened them.
pytestmark = pytest.mark.asyncio(loop_scope="module")
EVERY = pytest.mark.parametrize(
    "make", [by_openai, by_anthropic, by_ollama], ids=["openai", "anthropic", "ollama"]
)


@EVERY
async def test_chat(smoke: Served, make: Maker) -> None:
    model = make(smoke, KEY)
    answer = await asyncio.to_thread(model.invoke, "Hello")
    assert answer.text == smoke.answer
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] >= 8
    assert (await model.ainvoke("Hello")).text == smoke.answer


@EVERY
async def test_a_stream(smoke: Served, make: Maker) -> None:
    pieces = [chunk.text async for chunk in make(smoke, KEY).astream("Hello")]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(pieces) == smoke.answer


@EVERY
async def test_a_tool(tools: Served, make: Maker) -> None:
    model = make(tools, KEY).bind_tools([WEATHER])
    answer = await model.ainvoke("Will it rain?")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("get_weather", CALL)]


@pytest.mark.parametrize("make", [by_openai, by_ollama], ids=["openai", "ollama"])
async def test_a_structured_answer(smollm2: Served, make: Maker) -> None:
    model = make(smollm2, KEY).with_structured_output(Place, method="json_schema")
    assert await model.ainvoke(QUESTION) == PARIS


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_embeddings(house: House, name: str) -> None:
    served = await asyncio.to_thread(embedder, house, name)
    # It would count with OpenAI's tokenizer, which it loads, and send numbers of tokens.
    model = OpenAIEmbeddings(
        model="default",
        base_url=f"{served.api.base_url}/v1",
        api_key=KEY,
        check_embedding_ctx_length=False,
    )
    vectors = await model.aembed_documents(["The cat", "The dog"])
    assert [len(vector) for vector in vectors] == [WIDTH] * 2


@pytest.mark.parametrize(
    ("make", "key", "size"),
    [
        (by_openai, openai.AuthenticationError, openai.BadRequestError),
        (by_anthropic, anthropic.AuthenticationError, anthropic.BadRequestError),
        (by_ollama, ollama.ResponseError, ollama.ResponseError),
    ],
    ids=["openai", "anthropic", "ollama"],
)
async def test_errors_are_of_the_packages_below(
    smoke: Served, make: Maker, key: type[Exception], size: type[Exception]
) -> None:
    with pytest.raises(key, match="key"):
        await make(smoke, "another-key").ainvoke("Hello")
    with pytest.raises(size, match="context"):
        await make(smoke, KEY).ainvoke(TOO_LONG)


@EVERY
async def test_leaving_a_stream_stops_the_engine(smollm2: Served, make: Maker) -> None:
    async def read() -> None:
        async for _ in make(smollm2, KEY).astream(STORY):
            pass

    await stops_when_cancelled(smollm2, read())
