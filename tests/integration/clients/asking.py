"""What clients ask, and what the served models answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from sandbox.smoke_encoder import CONTEXT, EMBEDDING, WIDTH
from tests.integration.engines.conftest import House
from tests.integration.engines.serving import KEY, Served
from tests.waiting import until, until_async

__all__ = ["CALL", "EMBEDDERS", "KEY", "QUESTION", "STORY", "TOO_LONG", "WEATHER", "WIDTH"]

QUESTION = "What is the capital of France? Answer with a city and a country."
STORY = "Write a very long story about the sea."
"""Half a minute of work for SmolLM2, unless it is told to stop."""
TOO_LONG = "far too long " * 400
"""More than the context, for models whose tokens are bytes."""
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of the next days",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
CALL: dict[str, Any] = {"city": "Paris", "days": 3}
"""What the model `tools` calls WEATHER with, whatever it is asked."""
EMBEDDERS = {"llamacpp": 4, "ollama": 1}
"""Engines that embed, with how many texts at a time."""


class Place(BaseModel):
    """An answer whose every field a grammar bounds: a model of any size ends it."""

    city: Literal["Paris", "Madrid"]
    country: Literal["France", "Spain"]


PARIS = Place(city="Paris", country="France")


class Weather(BaseModel):
    """The arguments of WEATHER."""

    city: str
    days: int


def embedder(house: House, name: str) -> Served:
    """An engine with the generated model for embeddings, and its chat API."""
    return house.served(name, EMBEDDING.name, CONTEXT, EMBEDDERS[name])


def works_on(served: Served, requests: int) -> None:
    """Wait until the engine says that it works on so many requests."""
    # llama-server looks for clients that have left once it has had nothing else to do for a second,
    # and answering this question is something to do.
    until(
        served.engine.busy,
        f"{served.engine.provider} to work on {requests}",
        lambda found: found == requests,
        every=1.2,
    )


async def stops_when_cancelled(served: Served, asking: Coroutine[Any, Any, None]) -> None:
    """Have a client ask for STORY, cancel it while the engine works, and see the engine stop."""
    await asyncio.to_thread(works_on, served, 0)
    task = asyncio.create_task(asking)
    await until_async(
        lambda: task.done() or served.engine.busy() == 1,
        f"{served.engine.provider} to work on a request",
        seconds=180,
        every=1.2,
    )
    if task.done():
        task.result()
        pytest.fail("The answer came to its end before it could be cancelled.")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(works_on, served, 0)
