"""Home Assistant's Ollama integration: its requests, replayed as its package puts them on the wire.

Read in homeassistant/components/ollama (entity.py, config_flow.py) at 0d0db908: a list of models
when it is set up, and streamed chats with options, keep_alive and the tools of its Assist API.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from tests.integration.clients.asking import (
    CALL,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    WEATHER,
    Place,
    stops_when_cancelled,
)
from tests.integration.engines.serving import Served

SYSTEM = {
    "role": "system",
    "content": "You are a voice assistant for Home Assistant. Answer in plain text.",
}
TURN_ON = {
    "type": "function",
    "function": {
        "name": "HassTurnOn",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "area": {"type": "string"},
                "domain": {"type": "array", "items": {"type": "string"}},
            },
            "required": [],
        },
        "description": "Turns on/opens/presses a device or entity.",
    },
}


def body(served: Served, text: str, **more: Any) -> dict[str, Any]:
    """A chat's body; fields that are None are left out on the wire, an empty list is not."""
    return {
        # As the list has it, from which a person has chosen.
        "model": f"{served.engine.model}:latest",
        "messages": [SYSTEM, {"role": "user", "content": text}],
        "tools": [],
        "stream": True,
        "options": {"num_ctx": 8192},
        "keep_alive": -1,
        **more,
    }


async def parts_of(served: Served, asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """The lines of an answer, which came to its end."""
    done = False
    async with (
        served.api.client() as client,
        client.stream("POST", "/api/chat", json=asked) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        async for line in answer.aiter_lines():
            assert not done
            part = json.loads(line)
            assert "error" not in part, part
            done = part["done"]
            yield part
    assert done, "The answer ended without done."


async def test_it_is_set_up(smoke: Served) -> None:
    """The flow offers the models of the list; `:latest` is part of their names."""
    async with smoke.api.client() as client:
        answer = await client.get("/api/tags")
    assert answer.status_code == 200
    assert "smoke:latest" in [model["model"] for model in answer.json()["models"]]


@pytest.mark.parametrize("keep_alive", [-1, "300s"])
async def test_a_conversation(smoke: Served, keep_alive: int | str) -> None:
    parts = [part async for part in parts_of(smoke, body(smoke, "Hello", keep_alive=keep_alive))]
    assert {part["message"]["role"] for part in parts} == {"assistant"}
    pieces = [part["message"].get("content") for part in parts]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(piece or "" for piece in pieces) == smoke.answer
    assert (parts[-1]["done"], parts[-1]["done_reason"]) == (True, "stop")


async def test_a_tool_and_its_result(tools: Served) -> None:
    asked = body(tools, "Will it rain?", tools=[TURN_ON, WEATHER], think=False)
    parts = [part async for part in parts_of(tools, asked)]
    calls = [call for part in parts for call in part["message"].get("tool_calls") or []]
    called = [call["function"] for call in calls]
    assert [(each["name"], each["arguments"]) for each in called] == [("get_weather", CALL)]
    # The result follows the call without a name of either.
    result = {"data": {"success": True, "result": "Rain."}, "error": None}
    call = {"function": {"name": "get_weather", "arguments": CALL}}
    asked["messages"] += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": json.dumps(result)},
    ]
    again = [part async for part in parts_of(tools, asked)]
    assert again[-1]["prompt_eval_count"] > parts[-1]["prompt_eval_count"]


async def test_an_ai_task(smollm2: Served) -> None:
    """Its structure goes out as the format of the answer."""
    options = {"num_ctx": 8192, "temperature": 0, "num_predict": 80}
    asked = body(smollm2, QUESTION, format=Place.model_json_schema(), options=options)
    parts = [part async for part in parts_of(smollm2, asked)]
    text = "".join(part["message"].get("content") or "" for part in parts)
    assert Place.model_validate_json(text) == PARIS


async def test_errors_are_in_its_format(smoke: Served) -> None:
    """What the package below makes a ResponseError of, with this text."""
    async with httpx.AsyncClient(base_url=smoke.api.base_url, timeout=60) as client:
        answer = await client.get("/api/tags")
    assert answer.status_code == 401
    assert "key" in answer.json()["error"]
    async with smoke.api.client() as client:
        answer = await client.post("/api/chat", json=body(smoke, TOO_LONG))
    assert answer.status_code == 400
    assert "context" in answer.json()["error"]


async def test_leaving_a_conversation_stops_the_engine(smollm2: Served) -> None:
    async def ask() -> None:
        async with aclosing(parts_of(smollm2, body(smollm2, STORY))) as parts:
            async for _ in parts:
                await asyncio.sleep(0)

    await stops_when_cancelled(smollm2, ask())
