"""The chat API over real sockets: the engine's answers, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import Ollama
from llm_provider.providers.routes import CHAT, COMPLETIONS, RESPONSES
from llm_provider.providers.selection import PROVIDERS

from ..fake import (
    ANSWER,
    AUTH,
    CONTEXT,
    DONE,
    MODEL,
    WORDS,
    Exchange,
    FakeEngine,
    error_of,
    event,
    serve_api,
    stream_of,
)

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES}


SENT = BODY | {"model": MODEL}


# Answers.


async def test_a_whole_answer_is_the_engines_own(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    raw = b' {"choices" : [{"message": {"content": "caf\\u00e9"}}], "timings":{} }\n'
    engine.on(CHAT, lambda x: x.answer(raw))
    body = SENT | {"temperature": 0, "tools": [{"a": "field"}], "tomorrow": [None]}
    answer = await client.post(CHAT, json=body)
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["Content-Type"] == "application/json"
    assert engine.asked == [body | {"stream": False}]


async def test_streams_are_passed_on_byte_for_byte(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}):
        body = SENT | options | {"stream": True, "seed": 1}
        async with client.stream("POST", CHAT, json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["X-Accel-Buffering"] == "no"
            raw = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert raw == stream_of(usage=bool(options))
        assert engine.asked[-1] == body


@pytest.mark.parametrize("name", ["ollama", "vllm"])
@pytest.mark.parametrize(
    ("options", "usage"),
    [
        ({}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": {"include_usage": False}}, False),
        ({"stream_options": {"include_usage": True}}, True),
    ],
)
async def test_usage_is_asked_for_to_be_counted_and_given_to_who_asked(
    keys: Path, name: str, options: dict[str, Any], usage: bool
) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        answer = await client.post(CHAT, json=BODY | options | {"stream": True})
        assert answer.content == stream_of(kind=name, usage=usage)
        assert engine.asked[-1]["stream_options"] == {"include_usage": True}
        metrics = (await client.get("/metrics")).text
    assert f'edge_llm_tokens_total{{direction="out",key="key-1"}} {len(WORDS)}.0' in metrics


async def test_a_stream_comes_as_it_is_made(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    seen = asyncio.Event()

    async def stepwise(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("one"))
        await seen.wait()  # nothing more is sent before the client has this
        await exchange.chunk(DONE)
        await exchange.chunk(b"")

    engine.on(CHAT, stepwise)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == event("one")
        seen.set()
        assert [chunk async for chunk in chunks] == [DONE]


async def test_a_stream_with_crlf_and_comments_comes_as_it_is_made(keys: Path) -> None:
    """As a proxy before an engine may make it; the usage event is taken out all the same."""
    seen = asyncio.Event()
    last = b": bye\r\n\r\n"

    async def stepwise(exchange: Exchange) -> None:
        await exchange.begin_stream()
        whole = stream_of(kind="vllm", usage=True).replace(b"\n", b"\r\n")
        await exchange.chunk(whole[:200])
        await seen.wait()
        await exchange.chunk(whole[200:])
        await exchange.chunk(last)
        await exchange.chunk(b"")

    async with (
        FakeEngine("vllm").serving() as engine,
        PROVIDERS["vllm"](model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        engine.on(CHAT, stepwise)
        async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
            chunks = answer.aiter_raw()
            raw = await asyncio.wait_for(anext(chunks), 5)
            seen.set()
            raw += b"".join([chunk async for chunk in chunks])
        assert raw == stream_of(kind="vllm").replace(b"\n", b"\r\n") + last
        metrics = (await client.get("/metrics")).text
    assert f'edge_llm_tokens_total{{direction="out",key="key-1"}} {len(WORDS)}.0' in metrics
    assert f'{{key="key-1",outcome="complete",route="{CHAT}"}} 1.0' in metrics


async def test_other_routes_are_passed_through(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(COMPLETIONS, json={"prompt": "Hello", "max_tokens": 5})
    assert answer.json()["choices"][0]["text"] == ANSWER
    answer = await client.post(COMPLETIONS, json={"prompt": ["Hello"], "stream": True})
    assert answer.content.endswith(DONE)
    answer = await client.post(RESPONSES, json={"input": "Hello"})
    assert answer.json()["output"][0]["content"][0]["text"] == ANSWER
    answer = await client.post(RESPONSES, json={"input": "Hello", "stream": True})
    assert b"event: response.completed\n" in answer.content
    assert b"error" not in answer.content.replace(b'"error": null', b"")
    assert [request.body for request in engine.posts] == [
        {"prompt": "Hello", "max_tokens": 5, "model": MODEL, "stream": False},
        {"prompt": ["Hello"], "model": MODEL, "stream": True},
        {"input": "Hello", "model": MODEL, "stream": False},
        {"input": "Hello", "model": MODEL, "stream": True},
    ]


async def test_tokens_of_a_long_response_are_counted(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    """Its last event repeats the answer, in front of the usage or behind it."""
    output = [{"content": "x" * 20_000}]
    usage = {"input_tokens": 7, "output_tokens": 5}
    for number, response in enumerate(
        ({"output": output, "usage": usage}, {"usage": usage, "output": output}), 1
    ):
        last = {"type": "response.completed", "response": response}
        raw = f"event: response.completed\ndata: {json.dumps(last)}\n\n".encode()

        async def in_pieces(exchange: Exchange, raw: bytes = raw) -> None:
            await exchange.begin_stream()
            for start in range(0, len(raw), 4000):
                await exchange.chunk(raw[start : start + 4000])
                await asyncio.sleep(0.01)
            await exchange.chunk(b"")

        engine.on(RESPONSES, in_pieces)
        answer = await client.post(RESPONSES, json={"input": "Hello", "stream": True})
        assert answer.content == raw
        metrics = (await client.get("/metrics")).text
        assert f'edge_llm_tokens_total{{direction="in",key="key-1"}} {7.0 * number}' in metrics
        assert f'edge_llm_tokens_total{{direction="out",key="key-1"}} {5.0 * number}' in metrics


async def test_routes_that_the_engine_has_not(keys: Path) -> None:
    for name, kind in PROVIDERS.items():
        async with (
            FakeEngine(name).serving() as engine,
            kind(model=MODEL, base_url=engine.url) as llm,
            serve_api(llm, keys) as url,
            httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
        ):
            engine.without(RESPONSES)
            answer = await client.post(RESPONSES, json={"input": "Hello"})
            assert answer.status_code == 501
            problem = error_of(answer)
            assert problem["code"] == "not_supported_by_engine"
            assert problem["message"].startswith(f"{name} has no {RESPONSES} here: ")


async def test_what_ollama_cannot_do_is_the_requests_fault(keys: Path) -> None:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        for stream in (False, True):
            answer = await client.post(CHAT, json=BODY | {"n": 2, "stream": stream})
            assert answer.status_code == 400
            assert error_of(answer) == {
                "message": "'n' does not fit ollama: 2 would be ignored, which changes the answer. "
                "Leave it out, or use llamacpp or vllm.",
                "type": "invalid_request_error",
                "param": "n",
                "code": "not_supported_by_engine",
            }
        assert engine.asked == []
        # Told to end at the context's end, since it would not by itself.
        await client.post(CHAT, json=BODY)
        assert engine.asked[0]["max_tokens"] == CONTEXT
