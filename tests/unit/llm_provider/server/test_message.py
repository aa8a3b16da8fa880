"""POST /api/chat over real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.providers.selection import PROVIDERS

from ..fake import (
    ANSWER,
    AUTH,
    DONE,
    MODEL,
    WORDS,
    Exchange,
    FakeEngine,
    delta_event,
    error_event,
    error_of,
    event,
    serve_api,
    usage_of,
)

MESSAGES = [{"role": "user", "content": "Hello"}]


MESSAGE = "/api/chat"


# A message in, an answer out.


async def test_a_message(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(MESSAGE, json={"message": "Hello"})
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "answer": ANSWER,
            "model": MODEL,
            "finish_reason": "stop",
            "usage": usage_of(ANSWER),
        },
    )
    body = {"message": "Hello", "system": "Be brief.", "temperature": 0, "stream": False}
    assert (await client.post(MESSAGE, json=body)).json()["answer"] == ANSWER
    system = {"role": "system", "content": "Be brief."}
    assert engine.asked == [
        {"messages": MESSAGES, "model": MODEL, "stream": False},
        {"messages": [system, *MESSAGES], "temperature": 0, "model": MODEL, "stream": False},
    ]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_message_streamed(keys: Path, name: str) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        engine.on(CHAT, lambda x: x.stream(event(" "), event("  A") + event(" b"), DONE))
        answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.text == 'data: {"delta": "A"}\n\ndata: {"delta": " b"}\n\ndata: [DONE]\n\n'
        engine.on(CHAT, engine.chat)
        answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
    *deltas, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert [json.loads(line.removeprefix("data: "))["delta"] for line in deltas] == WORDS


async def test_a_message_whose_answer_breaks_off(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        await asyncio.sleep(0.05)
        await exchange.chunk(error_event("Context size has been exceeded."))
        await exchange.chunk(b"")

    engine.on(CHAT, cut)
    answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
    assert answer.text.startswith('data: {"delta": "Hel"}\n\n')
    assert DONE not in answer.content
    last = json.loads(answer.text.rpartition("data: ")[2])
    assert "Context size has been exceeded" in last["error"]["message"]


async def test_a_message_without_an_answer(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    engine.on(CHAT, lambda x: x.answer({"choices": [{"message": message}]}))
    assert (await client.post(MESSAGE, json={"message": "Hello"})).json() == {
        "answer": "",
        "model": None,
        "finish_reason": None,
        "usage": None,
    }
    engine.on(CHAT, lambda x: x.stream(delta_event({"tool_calls": [1]}), DONE))
    answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
    assert answer.content == DONE


@pytest.mark.parametrize("wrong", [{"choices": []}, {}, {"choices": [{"message": {"content": 1}}]}])
async def test_a_message_whose_answer_is_none(
    engine: FakeEngine, client: httpx.AsyncClient, wrong: object
) -> None:
    engine.on(CHAT, lambda x: x.answer(wrong))
    answer = await client.post(MESSAGE, json={"message": "Hello"})
    assert (answer.status_code, error_of(answer)["code"]) == (502, "engine_error")
