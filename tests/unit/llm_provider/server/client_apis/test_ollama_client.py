"""The `ollama` package and Home Assistant's calls of it, unchanged, against the chat API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from llm_provider.providers.routes import CHAT, COMPLETIONS

from ...fake import (
    ANSWER,
    AUTH,
    CONTEXT,
    DONE,
    MODEL,
    PROMPT_TOKENS,
    WORDS,
    FakeEngine,
    completion,
    delta_event,
    error_of,
    event,
    until,
)
from .engines import ENGINES, VECTORS, chat_api, endless, offer, say_in_two_parts
from .ollama_client import ASK, client


@pytest.fixture
async def sdk(api: str) -> AsyncIterator[ollama.AsyncClient]:
    async with client(api) as made:
        yield made


def get_weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: Name of the city
    """
    return f"12 °C in {city}"


# Answers.


async def test_a_chat(engine: FakeEngine, sdk: ollama.AsyncClient) -> None:
    answer = await sdk.chat(
        MODEL, ASK, options={"temperature": 0.5, "num_predict": 9, "num_ctx": 8192}
    )
    assert answer.message.content == ANSWER
    assert (answer.model, answer.done, answer.done_reason) == (MODEL, True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (PROMPT_TOKENS, len(WORDS))
    assert answer.created_at
    assert (answer.total_duration or 0) >= (answer.eval_duration or 0) > 0
    assert engine.asked == [
        {"model": MODEL, "messages": ASK, "temperature": 0.5, "max_tokens": 9, "stream": False}
    ]


@pytest.mark.parametrize("kind", ENGINES)
async def test_each_engine(kind: str, keys: Path) -> None:
    async with chat_api(kind, keys) as (engine, url), client(url) as sdk:
        answer = await sdk.chat(f"{MODEL}:latest", ASK, think=False)
        assert (answer.message.content, answer.model) == (ANSWER, f"{MODEL}:latest")
        parts = [part async for part in await sdk.chat(MODEL, ASK, think=True, stream=True)]
        assert "".join(part.message.content or "" for part in parts) == "".join(WORDS)
        assert (parts[-1].prompt_eval_count, parts[-1].eval_count) == (PROMPT_TOKENS, len(WORDS))
        told = [
            body.get("reasoning_effort") or body["chat_template_kwargs"]["enable_thinking"]
            for body in engine.asked
        ]
        assert told == (["none", "medium"] if kind == "ollama" else [False, True])


async def test_a_stream_comes_in_pieces(engine: FakeEngine, sdk: ollama.AsyncClient) -> None:
    goes_on = say_in_two_parts(engine)
    parts = await sdk.chat(MODEL, ASK, stream=True)
    first = await anext(parts)
    assert (first.message.content, first.done) == ("Hel", False)
    assert engine.running == 1  # the engine has not said more yet
    goes_on.set()
    rest = [(part.message.content, part.done, part.done_reason) async for part in parts]
    assert rest == [("lo.", False, None), ("", True, "stop")]


async def test_it_streams_unless_told_not_to(client: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "messages": ASK}
    answer = await client.post("/api/chat", json=body)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["X-Accel-Buffering"] == "no"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["message"]["content"] for line in lines] == [*WORDS, ""]
    answer = await client.post("/api/chat", json=body | {"stream": False})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["message"]["content"] == ANSWER


async def test_tools(engine: FakeEngine, sdk: ollama.AsyncClient) -> None:
    call = {"id": "call-1", "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}}
    whole = completion(finish_reason="tool_calls")
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    engine.on(CHAT, lambda x: x.answer(whole))
    first = await sdk.chat(MODEL, ASK, tools=[get_weather])
    (found,) = first.message.tool_calls or []
    assert (found.function.name, found.function.arguments) == ("get_weather", {"city": "Köln"})
    assert engine.asked[0]["tools"][0]["function"]["name"] == "get_weather"
    engine.on(CHAT, engine.chat)
    result = {"role": "tool", "tool_name": "get_weather", "content": get_weather("Köln")}
    second = await sdk.chat(MODEL, [*ASK, first.message, result], tools=[get_weather])
    assert second.message.content == ANSWER
    asked = engine.asked[1]["messages"]
    assert asked[2]["tool_call_id"] == asked[1]["tool_calls"][0]["id"]
    parts: list[dict[str, Any]] = [
        {"index": 0, "id": "call-1", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": "Paris"}'}},
    ]
    events = [delta_event({"tool_calls": [part]}) for part in parts]
    engine.on(CHAT, lambda x: x.stream(*events, event(finish_reason="tool_calls"), DONE))
    streamed = [part async for part in await sdk.chat(MODEL, ASK, stream=True)]
    (found,) = [call for part in streamed for call in part.message.tool_calls or []]
    assert found.function.arguments == {"city": "Paris"}


async def test_a_structured_answer_and_an_image(
    engine: FakeEngine, sdk: ollama.AsyncClient
) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    engine.on(CHAT, lambda x: x.answer(completion('{"name": "Paris"}')))
    message = {"role": "user", "content": "Where?", "images": [b"\x89PNG\r\n\x1a\n"]}
    answer = await sdk.chat(MODEL, [message], format=schema)
    assert json.loads(answer.message.content or "") == {"name": "Paris"}
    assert engine.asked[0]["response_format"]["json_schema"]["schema"] == schema
    parts = engine.asked[0]["messages"][0]["content"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


async def test_generate(engine: FakeEngine, sdk: ollama.AsyncClient) -> None:
    whole = await sdk.generate(MODEL, "Hello", system="Be brief.")
    assert (whole.response, whole.done_reason) == (ANSWER, "stop")
    assert [message["role"] for message in engine.asked[0]["messages"]] == ["system", "user"]
    parts = [part async for part in await sdk.generate(MODEL, "Hello", stream=True)]
    assert "".join(part.response or "" for part in parts) == "".join(WORDS)
    raw = await sdk.generate(MODEL, "Hello", raw=True)
    assert raw.response == ANSWER
    assert engine.posts[-1].path == COMPLETIONS
    assert engine.posts[-1].body["prompt"] == "Hello"


async def test_a_request_that_only_loads_the_model(
    engine: FakeEngine, sdk: ollama.AsyncClient
) -> None:
    assert (await sdk.generate(MODEL, keep_alive=-1)).done_reason == "load"
    assert (await sdk.chat(MODEL, [])).done_reason == "load"
    parts = [part async for part in await sdk.generate(MODEL, stream=True)]
    assert [part.done_reason for part in parts] == ["load"]
    with pytest.raises(ollama.ResponseError, match="the model stays loaded") as refused:
        await sdk.generate(MODEL, keep_alive=0)
    assert refused.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="served: smoke") as refused:
        await sdk.generate("gpt-5")
    assert refused.value.status_code == 404
    assert engine.posts == []


@pytest.mark.parametrize("kind", ENGINES)
async def test_embeddings(kind: str, keys: Path) -> None:
    async with chat_api(kind, keys, LLM_TASK="embedding") as (engine, url), client(url) as sdk:
        offer(engine)
        found = await sdk.embed(MODEL, "Hello")
        assert (list(found.embeddings), found.prompt_eval_count) == ([[0.5, -1.0]], 2)
        second = {"object": "embedding", "index": 1, "embedding": [0.25, 1.0]}
        both = VECTORS | {"data": [second, *VECTORS["data"]]}
        engine.on("/v1/embeddings", lambda x: x.answer(both))
        found = await sdk.embed(MODEL, ["Hello", "World"])
        assert list(found.embeddings) == [[0.5, -1.0], [0.25, 1.0]]
        assert engine.posts[-1].body["input"] == ["Hello", "World"]
        assert list((await sdk.embeddings(MODEL, "Hello")).embedding) == [0.5, -1.0]


# Models.


async def test_models(keys: Path) -> None:
    async with (
        chat_api("llamacpp", keys, LLM_MODEL_ALIASES="gpt-4o") as (engine, url),
        client(url) as sdk,
    ):
        settings = {"n_ctx": CONTEXT}
        props = {"default_generation_settings": settings, "modalities": {"vision": True}}
        engine.on("/props", lambda x: x.answer(props))
        await sdk.chat(MODEL, ASK)  # the engine has been asked what it can do
        listed = await sdk.list()
        assert [model.model for model in listed.models] == [f"{MODEL}:latest", "gpt-4o:latest"]
        assert len({model.digest for model in listed.models}) == 2
        shown = await sdk.show("gpt-4o:latest")
        assert shown.capabilities == ["completion", "tools", "vision"]
        assert shown.modelinfo is not None
        assert shown.modelinfo["unknown.context_length"] == CONTEXT
        assert shown.parameters == f"num_ctx {CONTEXT}"
        (running, _) = (await sdk.ps()).models
        assert (running.name, running.context_length) == (f"{MODEL}:latest", CONTEXT)
        with pytest.raises(ollama.ResponseError, match="served: smoke, gpt-4o") as refused:
            await sdk.show("gpt-5")
        assert refused.value.status_code == 404
        assert (await sdk.show("default")).capabilities == shown.capabilities


async def test_the_version_and_head(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/version")).json() == {"version": "0.34.0"}
    for path in ("/api/version", "/api/tags", "/api/ps"):
        answer = await client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_model_that_is_not_loaded_does_not_run(keys: Path) -> None:
    async with chat_api("llamacpp", keys, loading=True) as (engine, url), client(url) as sdk:
        assert (await sdk.ps()).models == []
        assert [model.model for model in (await sdk.list()).models] == [f"{MODEL}:latest"]
        engine.loading = False
        await sdk.chat(MODEL, ASK)
        assert [model.model for model in (await sdk.ps()).models] == [f"{MODEL}:latest"]


async def test_capabilities_of_an_embedding_engine(keys: Path) -> None:
    async with chat_api("llamacpp", keys, LLM_TASK="embedding") as (_, url), client(url) as sdk:
        assert (await sdk.show(MODEL)).capabilities == ["embedding"]


# The chat API's own body at the same path.


async def test_the_message_body_keeps_working(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/api/chat", json={"message": "Hello", "system": "Be brief."})
    assert answer.json()["answer"] == ANSWER
    answer = await client.post("/api/chat", json={"message": "Hello", "stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")
    # Both: it was so before.
    answer = await client.post("/api/chat", json={"message": "Hello", "messages": ASK})
    assert answer.json()["answer"] == ANSWER
    answer = await client.post("/api/chat", json={"message": ""})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "message")
    answer = await client.post("/api/chat", json={"message": "Hello", "model": "gpt-5"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    answer = await client.post("/api/chat", json={})
    assert answer.status_code == 400
    assert answer.json()["error"] == "'model' is missing."


# Leaving.


@pytest.mark.parametrize("streamed", [False, True])
async def test_leaving_stops_the_engine(
    engine: FakeEngine, sdk: ollama.AsyncClient, streamed: bool
) -> None:
    engine.on(CHAT, endless)
    if streamed:
        parts: Any = await sdk.chat(MODEL, ASK, stream=True)
        assert (await anext(parts)).message.content == "on "
        assert engine.running == 1
        await parts.aclose()
    else:
        request = asyncio.create_task(sdk.chat(MODEL, ASK))
        await until(lambda: engine.running == 1)
        request.cancel()
    await until(lambda: engine.running == 0)


async def test_without_await(engine: FakeEngine, api: str) -> None:
    """The package's other half, which blocks; in a thread, beside the API."""

    def use() -> None:
        with ollama.Client(api, headers=AUTH, timeout=10) as sdk:
            assert sdk.chat(MODEL, ASK).message.content == ANSWER
            parts = list(sdk.chat(MODEL, ASK, stream=True))
            assert [part.message.content for part in parts] == [*WORDS, ""]
            assert [model.model for model in sdk.list().models] == [f"{MODEL}:latest"]
            with pytest.raises(ollama.ResponseError):
                sdk.chat("gpt-5", ASK)

    await asyncio.to_thread(use)


# Home Assistant.


async def test_home_assistant(engine: FakeEngine, sdk: ollama.AsyncClient) -> None:
    """Its set-up (config_flow.py) and a conversation with a tool (entity.py)."""
    listed = await sdk.list()
    names = {entry["model"] for entry in listed.get("models", [])}
    assert names == {f"{MODEL}:latest"}
    tool = {
        "type": "function",
        "function": {
            "name": "HassTurnOn",
            "description": "Turns on a device",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }
    settings: dict[str, Any] = {
        "stream": True,
        "keep_alive": -1,
        "options": {"num_ctx": 8192},
        "think": False,
        "format": None,
    }
    call = {"index": 0, "id": "c", "function": {"name": "HassTurnOn", "arguments": '{"name": "a"}'}}
    engine.on(
        CHAT,
        lambda x: x.stream(
            delta_event({"tool_calls": [call]}), event(finish_reason="tool_calls"), DONE
        ),
    )
    model = names.pop()
    messages = [ollama.Message(role="user", content="Turn on the light")]
    calls: list[Any] = []
    async for response in await sdk.chat(model=model, messages=messages, tools=[tool], **settings):
        calls += response["message"].get("tool_calls") or []
    assert [(c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("HassTurnOn", {"name": "a"})
    ]
    engine.on(CHAT, engine.chat)
    # It cuts a long history anywhere, and sends no names of tools.
    messages += [
        ollama.Message(role="assistant", tool_calls=calls),
        ollama.Message(role="tool", content='{"success": true}'),
    ]
    text = ""
    async for response in await sdk.chat(
        model=model, messages=messages[1:], tools=[tool], **settings
    ):
        text += response["message"].get("content") or ""
    assert text == "".join(WORDS)
    asked = engine.asked[-1]["messages"]
    assert asked[1]["tool_call_id"] == asked[0]["tool_calls"][0]["id"]
