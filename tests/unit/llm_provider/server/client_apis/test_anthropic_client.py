"""The `anthropic` package, unchanged, against the chat API: answers, tokens, leaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from llm_provider.providers.routes import CHAT

from ...fake import (
    ANSWER,
    DONE,
    KEY,
    MODEL,
    PROMPT_TOKENS,
    WORDS,
    FakeEngine,
    completion,
    delta_event,
    event,
    until,
)
from .anthropic_client import HELLO, TOOL, client, text_of
from .engines import ENGINES, asked, chat_api, endless, offer, say_in_two_parts


@pytest.fixture
async def sdk(api: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client(api) as made:
        yield made


# Answers.


async def test_a_message(engine: FakeEngine, sdk: anthropic.AsyncAnthropic) -> None:
    message = await sdk.messages.create(
        **HELLO, system="Be brief.", stop_sequences=["x"], extra_body={"temperature": 0.5}
    )
    assert text_of(message) == ANSWER
    assert (message.model, message.role, message.stop_reason) == (MODEL, "assistant", "end_turn")
    assert message.id.startswith("msg_")
    assert message.usage.input_tokens == PROMPT_TOKENS
    assert message.usage.output_tokens == len(WORDS)
    assert engine.asked == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
            ],
            "max_tokens": 64,
            "temperature": 0.5,
            "stop": ["x"],
            "stream": False,
        }
    ]


@pytest.mark.parametrize("kind", ENGINES)
async def test_each_engine_is_asked_in_openais_format(kind: str, keys: Path) -> None:
    """Also by those that have a /v1/messages of their own."""
    async with chat_api(kind, keys) as (engine, url), client(url) as sdk:
        thinking: Any = {"type": "disabled"}
        assert text_of(await sdk.messages.create(**HELLO, thinking=thinking)) == ANSWER
        async with sdk.messages.stream(**HELLO, thinking=thinking) as stream:
            final = await stream.get_final_message()
        assert text_of(final) == "".join(WORDS)
        assert final.usage.input_tokens == PROMPT_TOKENS
        assert final.usage.output_tokens == len(WORDS)
        for body in engine.asked:
            if kind == "ollama":
                assert body["reasoning_effort"] == "none"
            else:
                assert body["chat_template_kwargs"] == {"enable_thinking": False}


async def test_a_stream_comes_in_pieces(engine: FakeEngine, sdk: anthropic.AsyncAnthropic) -> None:
    goes_on = say_in_two_parts(engine)
    async with sdk.messages.stream(**HELLO) as stream:
        texts = stream.text_stream
        assert await anext(texts) == "Hel"
        assert engine.running == 1  # the engine has not said more yet
        goes_on.set()
        assert [text async for text in texts] == ["lo."]
        final = await stream.get_final_message()
    assert (text_of(final), final.stop_reason) == ("Hello.", "end_turn")


async def test_raw_events(sdk: anthropic.AsyncAnthropic) -> None:
    stream = await sdk.messages.create(**HELLO, stream=True)
    kinds = [one.type async for one in stream]
    assert kinds == [
        *("message_start", "content_block_start"),
        *["content_block_delta"] * len(WORDS),
        *("content_block_stop", "message_delta", "message_stop"),
    ]


async def test_tools(engine: FakeEngine, sdk: anthropic.AsyncAnthropic) -> None:
    call = {"id": "call-1", "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}}
    whole = completion(finish_reason="tool_calls")
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    engine.on(CHAT, lambda x: x.answer(whole))
    tools: list[Any] = [TOOL]
    first = await sdk.messages.create(**HELLO, tools=tools, tool_choice={"type": "any"})
    (block,) = first.content
    assert block.type == "tool_use"
    assert (block.id, block.name, block.input) == ("call-1", "get_weather", {"city": "Köln"})
    assert first.stop_reason == "tool_use"
    assert engine.asked[0]["tool_choice"] == "required"
    # Its result, said back.
    engine.on(CHAT, engine.chat)
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": "12 °C"}
    messages: list[Any] = [
        *HELLO["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = await sdk.messages.create(**HELLO | {"messages": messages}, tools=tools)
    assert text_of(second) == ANSWER
    assert engine.asked[1]["messages"][2] == {
        "role": "tool",
        "tool_call_id": "call-1",
        "content": "12 °C",
    }


async def test_tools_streamed(engine: FakeEngine, sdk: anthropic.AsyncAnthropic) -> None:
    parts: list[dict[str, Any]] = [
        {"index": 0, "id": "call-1", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Paris"}'}},
    ]
    events = [delta_event({"tool_calls": [part]}) for part in parts]
    engine.on(CHAT, lambda x: x.stream(*events, event(finish_reason="tool_calls"), DONE))
    tools: list[Any] = [TOOL]
    async with sdk.messages.stream(**HELLO, tools=tools) as stream:
        pieces = [one.partial_json async for one in stream if one.type == "input_json"]
        final = await stream.get_final_message()
    assert pieces == ['{"city": ', '"Paris"}']
    (block,) = final.content
    assert block.type == "tool_use"
    assert block.input == {"city": "Paris"}


async def test_an_image(engine: FakeEngine, sdk: anthropic.AsyncAnthropic) -> None:
    image: Any = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
    }
    messages: list[Any] = [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]
    assert text_of(await sdk.messages.create(**HELLO | {"messages": messages})) == ANSWER
    (message,) = engine.asked[0]["messages"]
    assert message["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="


async def test_names_of_the_model(engine: FakeEngine, keys: Path) -> None:
    async with (
        chat_api("llamacpp", keys, LLM_MODEL_ALIASES="claude-sonnet-5") as (served, url),
        client(url) as sdk,
    ):
        for name in (MODEL, "default", "claude-sonnet-5"):
            message = await sdk.messages.create(**HELLO | {"model": name})
            assert message.model == name
            assert served.asked[-1]["model"] == MODEL


async def test_beta_headers_and_bearer_keys(api: str) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=api, auth_token=KEY, api_key=None, max_retries=0
    ) as sdk:
        message = await sdk.beta.messages.create(**HELLO, betas=["context-1m-2025-08-07"])
        assert message.content[0].type == "text"
        assert message.content[0].text == ANSWER


async def test_without_await(engine: FakeEngine, api: str) -> None:
    """The package's other half, which blocks; in a thread, beside the API."""
    offer(engine)

    def use() -> None:
        with anthropic.Anthropic(base_url=api, api_key=KEY, max_retries=0) as sdk:
            assert text_of(sdk.messages.create(**HELLO)) == ANSWER
            with sdk.messages.stream(**HELLO) as stream:
                assert list(stream.text_stream) == WORDS
            counted = sdk.messages.count_tokens(model=MODEL, messages=HELLO["messages"])
            assert counted.input_tokens == 3
            with pytest.raises(anthropic.NotFoundError):
                sdk.messages.create(**HELLO | {"model": "gpt-5"})

    await asyncio.to_thread(use)


# Tokens.


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
async def test_tokens_are_counted(kind: str, keys: Path) -> None:
    async with chat_api(kind, keys) as (engine, url), client(url) as sdk:
        offer(engine)
        tools: list[Any] = [TOOL]
        found = await sdk.messages.count_tokens(
            model=MODEL, messages=HELLO["messages"], system="Be brief.", tools=tools
        )
        assert found.input_tokens == 3
        first = engine.posts[0]
        assert first.body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert first.body["tools"][0]["function"]["name"] == "get_weather"
        if kind == "llamacpp":
            assert [each.path for each in engine.posts] == ["/apply-template", "/tokenize"]
            assert engine.posts[1].body["content"] == "<user>Hello"
            assert engine.posts[1].body["add_special"] is True
        else:
            assert [each.path for each in engine.posts] == ["/tokenize"]


async def test_tokens_are_counted_while_all_slots_are_taken(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic
) -> None:
    offer(engine)
    goes_on = engine.paused()
    running = [asyncio.create_task(sdk.messages.create(**HELLO)) for _ in range(4)]
    await until(lambda: engine.running == 2)
    request = sdk.messages.count_tokens(model=MODEL, messages=HELLO["messages"])
    found = await asyncio.wait_for(request, 10)
    assert found.input_tokens == 3
    goes_on.set()
    await asyncio.gather(*running)


async def test_an_image_counts_as_it_does_in_the_queue(keys: Path) -> None:
    image: Any = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
    }
    messages: list[Any] = [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]
    environs: list[tuple[dict[str, Any], int]]
    environs = [({}, 1024), ({"CHAT_API_IMAGE_TOKENS": "256"}, 256)]
    for environ, tokens in environs:
        async with chat_api("llamacpp", keys, **environ) as (engine, url), client(url) as sdk:
            offer(engine)
            found = await sdk.messages.count_tokens(model=MODEL, messages=messages)
            assert found.input_tokens == 3 + tokens


async def test_an_engine_that_counts_no_tokens(keys: Path) -> None:
    async with chat_api("ollama", keys) as (engine, url), client(url) as sdk:
        with pytest.raises(anthropic.InternalServerError) as refused:
            await sdk.messages.count_tokens(model=MODEL, messages=HELLO["messages"])
        assert refused.value.status_code == 501
        assert refused.value.api_message == (
            "ollama does not offer counting the tokens of a chat. "
            "It is served where the engine is llamacpp or vllm."
        )
        assert refused.value.error_code == "not_supported_by_engine"
        assert asked(engine) == []


@pytest.mark.parametrize(
    ("path", "answer"), [("/apply-template", {}), ("/tokenize", {"tokens": "1"})]
)
async def test_an_engine_that_counts_nonsense(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic, path: str, answer: Any
) -> None:
    offer(engine)
    engine.on(path, lambda x: x.answer(answer))
    with pytest.raises(anthropic.InternalServerError) as failed:
        await sdk.messages.count_tokens(model=MODEL, messages=HELLO["messages"])
    assert failed.value.status_code == 502
    assert failed.value.type == "api_error"


# Leaving.


@pytest.mark.parametrize("streamed", [False, True])
async def test_leaving_stops_the_engine(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic, streamed: bool
) -> None:
    engine.on(CHAT, endless)
    if streamed:
        async with sdk.messages.stream(**HELLO) as stream:
            assert await anext(stream.text_stream) == "on "
            assert engine.running == 1
    else:
        request = asyncio.create_task(sdk.messages.create(**HELLO))
        await until(lambda: engine.running == 1)
        request.cancel()
    await until(lambda: engine.running == 0)
