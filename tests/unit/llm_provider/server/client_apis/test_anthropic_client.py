"""The `anthropic` package, unchanged, against the chat API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from llm_provider.providers.routes import CHAT

from ...fake import (
    ANSWER,
    AUTH,
    DONE,
    KEY,
    MODEL,
    PROMPT_TOKENS,
    WORDS,
    Exchange,
    FakeEngine,
    completion,
    delta_event,
    error_event,
    event,
    until,
)
from .engines import ENGINES, asked, chat_api, endless, offer, say_in_two_parts

HELLO: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Hello"}],
}
TOOL: dict[str, Any] = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def client(url: str, key: str = KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=10)


@pytest.fixture
async def sdk(api: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client(api) as made:
        yield made


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


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


async def test_an_image_counts_as_it_does_in_the_queue(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic
) -> None:
    offer(engine)
    image: Any = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
    }
    messages: list[Any] = [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]
    found = await sdk.messages.count_tokens(model=MODEL, messages=messages)
    assert found.input_tokens == 3 + 1024


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


# Errors, as its own types.


async def test_a_wrong_key(api: str) -> None:
    async with client(api, "another") as sdk:
        for streamed in (False, True):
            with pytest.raises(anthropic.AuthenticationError) as refused:
                await sdk.messages.create(**HELLO, stream=streamed)
            assert refused.value.type == "authentication_error"
            assert "API key" in str(refused.value.api_message)
            assert refused.value.request_id == refused.value.response.headers["x-request-id"]


async def test_a_model_that_is_not_served(sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await sdk.messages.create(**HELLO | {"model": "claude-sonnet-5"})
    assert refused.value.type == "not_found_error"
    assert "served: smoke" in str(refused.value.api_message)
    assert refused.value.error_code == "model_not_found"


async def test_a_route_that_is_none(api: str, sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await sdk.messages.batches.list()
    assert refused.value.type == "not_found_error"
    async with httpx.AsyncClient(base_url=api, headers=AUTH) as plain:
        answer = await plain.get("/v1/messages")
        assert answer.status_code == 405
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("changed", "param", "words"),
    [
        ({"max_tokens": 0}, "max_tokens", "It must be 1 or more"),
        ({"messages": []}, "messages", "messages"),
        ({"container": "x"}, "container", "there is no container"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools.0.type", "of Anthropic"),
    ],
)
async def test_a_request_that_is_none(
    engine: FakeEngine,
    sdk: anthropic.AsyncAnthropic,
    changed: dict[str, Any],
    param: str,
    words: str,
) -> None:
    body = HELLO | changed
    extra = {name: body.pop(name) for name in list(body) if name == "container"}
    with pytest.raises(anthropic.BadRequestError, match=words) as refused:
        await sdk.messages.create(**body, extra_body=extra)
    assert refused.value.type == "invalid_request_error"
    error: Any = refused.value.body
    assert error["error"]["details"]["param"] == param
    assert engine.posts == []


async def test_a_request_that_is_none_does_not_wait(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic
) -> None:
    goes_on = engine.paused()
    running = [asyncio.create_task(sdk.messages.create(**HELLO)) for _ in range(2)]
    await until(lambda: engine.running == 2)
    with pytest.raises(anthropic.BadRequestError):
        await asyncio.wait_for(sdk.messages.create(**HELLO | {"max_tokens": 0}), 5)
    goes_on.set()
    await asyncio.gather(*running)


async def test_a_body_that_is_too_large(keys: Path) -> None:
    messages: list[Any] = [{"role": "user", "content": "x" * 200_000}]
    async with (
        chat_api("llamacpp", keys, CHAT_API_MAX_BODY_BYTES="100000") as (_, url),
        client(url) as sdk,
    ):
        with pytest.raises(anthropic.RequestTooLargeError) as refused:
            await sdk.messages.create(**HELLO | {"messages": messages})
    assert str(refused.value.type) == "request_too_large"
    assert refused.value.error_code == "body_too_large"


async def test_a_full_queue(engine: FakeEngine, sdk: anthropic.AsyncAnthropic) -> None:
    goes_on = engine.paused()
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(sdk.messages.create(**HELLO)) for _ in range(2 + 64 + 1)
    ]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=20)
    (refused,) = done
    error = refused.exception()
    assert isinstance(error, anthropic.RateLimitError)
    assert error.type == "rate_limit_error"
    assert error.error_code == "queue_full"
    goes_on.set()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "type_"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_an_engines_refusal(
    engine: FakeEngine,
    sdk: anthropic.AsyncAnthropic,
    status: int,
    kind: type[anthropic.APIStatusError],
    type_: str,
    streamed: bool,
) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "too odd"}}, status))
    with pytest.raises(kind) as refused:
        await sdk.messages.create(**HELLO, stream=streamed)
    assert refused.value.type == type_
    assert "too odd" in str(refused.value.api_message)
    assert engine.url not in str(refused.value)


async def test_a_conversation_beyond_the_context(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic
) -> None:
    error = {
        "code": 400,
        "message": "request (9000 tokens) exceeds the available context size (4096 tokens)",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9000,
        "n_ctx": 4096,
    }
    engine.on(CHAT, lambda x: x.answer({"error": error}, 400))
    with pytest.raises(anthropic.BadRequestError) as refused:
        await sdk.messages.create(**HELLO)
    assert str(refused.value.api_message).startswith("prompt is too long: 9000 tokens > 4096 max")
    assert refused.value.error_code == "context_length_exceeded"


async def test_what_may_have_run_is_not_sent_again(engine: FakeEngine, api: str) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "out of memory"}}, 500))
    async with anthropic.AsyncAnthropic(base_url=api, api_key=KEY, max_retries=2) as sdk:
        with pytest.raises(anthropic.InternalServerError):
            await sdk.messages.create(**HELLO)
    assert len(engine.asked) == 1


async def test_silence(keys: Path) -> None:
    async with chat_api("llamacpp", keys, silence=0.3) as (engine, url), client(url) as sdk:
        engine.on(CHAT, lambda x: asyncio.sleep(60))
        with pytest.raises(anthropic.InternalServerError) as failed:
            await sdk.messages.create(**HELLO)
        assert (failed.value.status_code, failed.value.type) == (504, "timeout_error")


@pytest.mark.parametrize("how", ["cut", "an error event", "no reason", "no JSON"])
async def test_a_stream_that_breaks_off(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic, how: str
) -> None:
    last = {
        "cut": b"",
        "an error event": error_event("Context size has been exceeded at http://10.0.0.7:8080."),
        "no reason": DONE,
        "no JSON": b"data: {\n\n" + DONE,
    }[how]

    async def breaks(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        if last:
            await exchange.chunk(last)
            await exchange.chunk(b"")

    engine.on(CHAT, breaks)
    texts = []
    with pytest.raises(anthropic.APIStatusError) as failed:
        async with sdk.messages.stream(**HELLO) as stream:
            async for text in stream.text_stream:
                texts.append(text)
    assert texts == ["Hel"]
    assert failed.value.type == "api_error"
    words = {
        "cut": "broke the connection",
        "an error event": "Context size has been exceeded at [address].",
        "no reason": "broke off before its end",
        "no JSON": "is not JSON",
    }[how]
    assert words in str(failed.value.api_message)


async def test_a_call_that_is_no_json_is_the_engines_fault(
    engine: FakeEngine, sdk: anthropic.AsyncAnthropic
) -> None:
    call = {"id": "call-1", "function": {"name": "get_weather", "arguments": "{"}}
    whole = completion(finish_reason="tool_calls")
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    engine.on(CHAT, lambda x: x.answer(whole))
    with pytest.raises(anthropic.InternalServerError, match="arguments that are no JSON") as failed:
        await sdk.messages.create(**HELLO)
    assert (failed.value.status_code, failed.value.type) == (502, "api_error")


async def test_errors_of_the_connection_are_in_its_format_too(api: str) -> None:
    """What is refused before a body is read, for a client that is no SDK."""
    async with httpx.AsyncClient(base_url=api) as plain:
        answer = await plain.post("/v1/messages", json=HELLO)
        assert answer.status_code == 401
        body = answer.json()
        assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
        assert body["request_id"] == answer.headers["request-id"]
        answer = await plain.post("/v1/messages", content=b"{", headers=AUTH)
        assert (answer.status_code, answer.json()["type"]) == (400, "error")
        assert json.loads(answer.content)["error"]["type"] == "invalid_request_error"
