"""The `openai` package, unchanged, against the chat API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT

from ..fake import (
    ANSWER,
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
    free_port,
    serve_api,
    until,
)

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
}
CALL = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"place": "Paris"}'},
}


class Place(BaseModel):
    """A structured answer."""

    name: str
    people: int


@pytest.fixture
async def sdk(api: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{api}/v1", api_key=KEY, max_retries=0, timeout=10
    ) as client:
        yield client


@pytest.fixture
async def other_key(api: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api}/v1", api_key="another", max_retries=0) as client:
        yield client


async def test_chat(engine: FakeEngine, sdk: openai.AsyncOpenAI) -> None:
    for model in (MODEL, "default", ""):
        answer = await sdk.chat.completions.create(
            model=model, messages=MESSAGES, temperature=0, max_tokens=9, seed=1, stop=["x"]
        )
        assert answer.choices[0].message.content == ANSWER
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == MODEL
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(WORDS)
    assert engine.asked[0] == {
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": 9,
        "seed": 1,
        "stop": ["x"],
        "model": MODEL,
        "stream": False,
    }


async def test_a_stream(sdk: openai.AsyncOpenAI) -> None:
    pieces = []
    reasons = []
    stream = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    async for chunk in stream:
        assert chunk.usage is None
        pieces.append(chunk.choices[0].delta.content or "")
        reasons.append(chunk.choices[0].finish_reason)
    assert [piece for piece in pieces if piece] == WORDS
    assert reasons[-1] == "stop"


async def test_a_stream_with_usage(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == PROMPT_TOKENS
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_the_streaming_helper(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        kinds = [one.type async for one in stream]
        final = await stream.get_final_completion()
    assert kinds.count("content.delta") == len(WORDS)
    assert final.choices[0].message.content == "".join(WORDS)


async def test_tools(engine: FakeEngine, sdk: openai.AsyncOpenAI) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    whole = completion(finish_reason="tool_calls")
    whole["choices"][0]["message"] = message
    engine.on(CHAT, lambda x: x.answer(whole))
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice="required"
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"place": "Paris"}
    assert engine.asked[0]["tools"] == [TOOL]
    assert engine.asked[0]["tool_choice"] == "required"
    # Its result, said back.
    engine.on(CHAT, engine.chat)
    said: list[Any] = [message, {"role": "tool", "tool_call_id": "call-1", "content": "sunny"}]
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=[*MESSAGES, *said], tools=[TOOL]
    )
    assert answer.choices[0].message.content == ANSWER
    assert engine.asked[1]["messages"] == [*MESSAGES, *said]


async def test_tools_streamed(engine: FakeEngine, sdk: openai.AsyncOpenAI) -> None:
    first = {"index": 0, "id": "call-1", "type": "function"}
    parts = [
        {**first, "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"place": '}},
        {"index": 0, "function": {"arguments": '"Paris"}'}},
    ]
    events = [delta_event({"tool_calls": [part]}) for part in parts]
    engine.on(CHAT, lambda x: x.stream(*events, event(finish_reason="tool_calls"), DONE))
    async with sdk.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=[TOOL]) as stream:
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"place": "Paris"}
    assert final.choices[0].finish_reason == "tool_calls"


async def test_structured_answers(engine: FakeEngine, sdk: openai.AsyncOpenAI) -> None:
    place = Place(name="Paris", people=2_100_000)
    engine.on(CHAT, lambda x: x.answer(completion(place.model_dump_json())))
    parsed = await sdk.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Place)
    assert parsed.choices[0].message.parsed == place
    asked = engine.asked[0]["response_format"]
    assert asked["type"] == "json_schema"
    assert set(asked["json_schema"]["schema"]["properties"]) == {"name", "people"}
    plain = await sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_format={"type": "json_object"}
    )
    assert json.loads(plain.choices[0].message.content or "") == place.model_dump()
    assert engine.asked[1]["response_format"] == {"type": "json_object"}


async def test_log_probabilities(engine: FakeEngine, sdk: openai.AsyncOpenAI) -> None:
    token = {"token": "The", "logprob": -0.1, "bytes": [84, 104, 101], "top_logprobs": []}
    whole = completion()
    whole["choices"][0]["logprobs"] = {"content": [token]}
    engine.on(CHAT, lambda x: x.answer(whole))
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=1
    )
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    assert answer.choices[0].logprobs.content[0].token == "The"


async def test_models(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == [MODEL]
    assert (await sdk.models.retrieve(MODEL)).owned_by == "edge-llm"
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


async def test_completions(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.completions.create(model=MODEL, prompt="Hello")
    assert answer.choices[0].text == ANSWER
    stream = await sdk.completions.create(model=MODEL, prompt="Hello", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == ANSWER


async def test_responses(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.responses.create(model=MODEL, input="Hello")
    assert answer.output_text == ANSWER
    stream = await sdk.responses.create(model=MODEL, input="Hello", stream=True)
    kinds = [one.type async for one in stream]
    assert kinds == [*["response.output_text.delta"] * len(WORDS), "response.completed"]


async def test_embeddings_of_an_engine_for_chat(
    engine: FakeEngine, sdk: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.embeddings.create(model=MODEL, input="Hello")
    assert caught.value.status_code == 501
    assert "llamacpp was started for chat" in caught.value.message
    assert engine.posts == []


# Errors, as its own types.


async def test_a_wrong_key(other_key: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await other_key.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        await other_key.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with pytest.raises(openai.AuthenticationError):
        _ = [model async for model in other_key.models.list()]


async def test_a_model_that_is_not_served(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "served: smoke" in caught.value.message
    assert caught.value.request_id


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, openai.BadRequestError, None),
        (500, openai.InternalServerError, "engine_error"),
        (503, openai.InternalServerError, "engine_busy"),
        (429, openai.InternalServerError, "engine_busy"),
        (501, openai.InternalServerError, "not_supported_by_engine"),
    ],
)
async def test_an_engines_refusal(
    engine: FakeEngine,
    sdk: openai.AsyncOpenAI,
    status: int,
    kind: type[openai.APIStatusError],
    code: str | None,
    stream: bool,
) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "too long"}}, status))
    with pytest.raises(kind) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream)
    assert caught.value.code == code
    assert "too long" in caught.value.message


async def test_a_body_that_is_none(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'messages' must be a list of at least one"):
        await sdk.chat.completions.create(model=MODEL, messages=[])
    with pytest.raises(openai.APIStatusError) as caught:
        await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x" * 5_000_000}]
        )
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


async def test_too_many(engine: FakeEngine, sdk: openai.AsyncOpenAI) -> None:
    goes_on = engine.paused()
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(sdk.chat.completions.create(model=MODEL, messages=MESSAGES))
        for _ in range(2 + 64 + 3)
    ]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=10)
    while len(done) < 3:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION, timeout=10)
        assert more, "fewer than three were refused"
        done |= more
    for task in done:
        error = task.exception()
        assert isinstance(error, openai.RateLimitError)
        assert error.code == "queue_full"
        assert int(error.response.headers["Retry-After"]) > 0
    goes_on.set()
    await asyncio.gather(*waiting)


async def test_silence(engine: FakeEngine, keys: Path) -> None:
    engine.on(CHAT, lambda x: asyncio.sleep(60))
    async with (
        LlamaCpp(model=MODEL, base_url=engine.url, timeout=0.2) as llm,
        serve_api(llm, keys) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as sdk,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (504, "engine_timeout")


async def test_a_conversation_beyond_the_context(
    engine: FakeEngine, sdk: openai.AsyncOpenAI
) -> None:
    error = {
        "code": 400,
        "message": "request (9000 tokens) exceeds the available context size (4096 tokens)",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9000,
        "n_ctx": 4096,
    }
    engine.on(CHAT, lambda x: x.answer({"error": error}, 400))
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.body == error | {"code": "context_length_exceeded", "param": None}


@pytest.mark.parametrize("how", ["cut", "an error event"])
async def test_a_stream_that_breaks_off(
    engine: FakeEngine, sdk: openai.AsyncOpenAI, how: str
) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        await asyncio.sleep(0.05)
        if how == "an error event":
            await exchange.chunk(error_event("Context size has been exceeded."))

    engine.on(CHAT, breaks)
    pieces = []
    stream = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError) as caught:
        async for chunk in stream:
            pieces.append(chunk.choices[0].delta.content)
    assert pieces == ["Hel"]
    words = "broke the connection" if how == "cut" else "Context size has been exceeded"
    assert words in caught.value.message


async def test_a_chat_api_that_is_not_there() -> None:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{free_port()}/v1", api_key=KEY, max_retries=0
    ) as sdk:
        with pytest.raises(openai.APIConnectionError):
            await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)


async def test_its_own_timeout_and_leaving_stop_the_engine(
    engine: FakeEngine, sdk: openai.AsyncOpenAI
) -> None:
    async def endless(exchange: Exchange) -> None:
        if not exchange.body["stream"]:
            await asyncio.sleep(60)
        await exchange.begin_stream()
        while True:
            await exchange.chunk(event("on "))
            await asyncio.sleep(0.005)

    engine.on(CHAT, endless)
    with pytest.raises(openai.APITimeoutError):
        await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, timeout=0.2)
    await until(lambda: engine.running == 0)
    stream = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    async for _ in stream:
        break
    assert engine.running == 1
    await stream.close()
    await until(lambda: engine.running == 0)


async def test_its_retries_are_for_what_has_not_run(
    engine: FakeEngine, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits as Retry-After says, and then gets its answer."""
    waits: list[float] = []

    async def at_once(self: object, seconds: float) -> None:
        waits.append(seconds)
        engine.on(CHAT, engine.chat)

    monkeypatch.setattr("openai._base_client.anyio.sleep", lambda s: at_once(None, s))
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "busy"}}, 503))
    async with openai.AsyncOpenAI(base_url=f"{api}/v1", api_key=KEY, max_retries=1) as sdk:
        answer = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == ANSWER
    assert waits == [5.0]


@pytest.mark.parametrize("how", ["fails", "breaks off", "is silent"])
async def test_what_may_have_run_is_not_sent_again(
    engine: FakeEngine, keys: Path, how: str
) -> None:
    """The package sends again what was answered 500 or more, unless told not to."""

    async def answer(exchange: Exchange) -> None:
        if how == "fails":
            await exchange.answer({"error": {"message": "out of memory"}}, 500)
        elif how == "breaks off":
            raise ConnectionError
        else:
            await asyncio.sleep(60)

    engine.on(CHAT, answer)
    async with (
        LlamaCpp(model=MODEL, base_url=engine.url, timeout=0.5) as llm,
        serve_api(llm, keys) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=2) as sdk,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(engine.asked) == 1


async def test_without_await(engine: FakeEngine, api: str) -> None:
    """The same through the package's other half, which blocks; in a thread, beside the API."""

    def use() -> None:
        with openai.OpenAI(base_url=f"{api}/v1", api_key=KEY, max_retries=0) as sdk:
            answer = sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
            assert answer.choices[0].message.content == ANSWER
            stream = sdk.chat.completions.create(
                model=MODEL,
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
            assert chunks[-1].usage is not None
            texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
            assert "".join(texts) == "".join(WORDS)
            with sdk.chat.completions.stream(model=MODEL, messages=MESSAGES) as helper:
                helper.until_done()
                assert helper.get_final_completion().choices[0].finish_reason == "stop"
            assert [model.id for model in sdk.models.list()] == [MODEL]
            assert sdk.models.retrieve(MODEL).id == MODEL
            assert sdk.completions.create(model=MODEL, prompt="Hi").choices[0].text == ANSWER
            assert sdk.responses.create(model=MODEL, input="Hi").output_text == ANSWER
            with pytest.raises(openai.InternalServerError):
                sdk.embeddings.create(model=MODEL, input="Hi")
            with pytest.raises(openai.NotFoundError):
                sdk.chat.completions.create(model="gpt-5", messages=MESSAGES)
            with pytest.raises(openai.BadRequestError):
                sdk.chat.completions.create(model=MODEL, messages=[])
        with (
            openai.OpenAI(base_url=f"{api}/v1", api_key="another", max_retries=0) as sdk,
            pytest.raises(openai.AuthenticationError),
        ):
            sdk.models.list()

    await asyncio.to_thread(use)
    engine.on(CHAT, lambda x: x.stream(event("Hel"), error_event("no more room")))

    def break_off() -> None:
        with openai.OpenAI(base_url=f"{api}/v1", api_key=KEY, max_retries=0) as sdk:
            stream = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            with pytest.raises(openai.APIError, match="no more room"):
                list(stream)

    await asyncio.to_thread(break_off)


async def test_its_raw_answers_carry_the_request_id(sdk: openai.AsyncOpenAI) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, extra_headers={"X-Request-Id": "mine-1"}
    )
    assert raw.headers["X-Request-Id"] == "mine-1"
    assert raw.parse().choices[0].message.content == ANSWER
