"""The `anthropic` package, unchanged, against the chat API: errors, as its own types."""

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
    AUTH,
    DONE,
    KEY,
    Exchange,
    FakeEngine,
    completion,
    error_event,
    event,
    until,
)
from .anthropic_client import HELLO, client
from .engines import chat_api


@pytest.fixture
async def sdk(api: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client(api) as made:
        yield made


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
    async with httpx.AsyncClient(base_url=api, headers=AUTH, timeout=60) as plain:
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
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=60)
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
    async with httpx.AsyncClient(base_url=api, timeout=60) as plain:
        answer = await plain.post("/v1/messages", json=HELLO)
        assert answer.status_code == 401
        body = answer.json()
        assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
        assert body["request_id"] == answer.headers["request-id"]
        answer = await plain.post("/v1/messages", content=b"{", headers=AUTH)
        assert (answer.status_code, answer.json()["type"]) == (400, "error")
        assert json.loads(answer.content)["error"]["type"] == "invalid_request_error"
