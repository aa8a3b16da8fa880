"""A streamed answer as an object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from llm_provider import LlamaCpp, Stream, StreamInterruptedError
from llm_provider.providers.routes import CHAT

from ..fake import ANSWER, Exchange, FakeEngine, event, until

MESSAGES = [{"role": "user", "content": "Hello"}]


async def begun(exchange: Exchange) -> None:
    """One event, and silence."""
    await exchange.begin_stream()
    await exchange.chunk(event("Hel"))
    await asyncio.sleep(60)


def both(llm: LlamaCpp) -> list[Stream[Any]]:
    return [llm.stream(messages=MESSAGES), llm.generate_stream("Hello")]


def is_read(stream: Stream[Any]) -> Callable[[], bool]:
    return lambda: stream._reading is not None


async def test_a_stream_is_read_to_its_end(llm: LlamaCpp) -> None:
    stream = llm.generate_stream("Hello")
    assert "".join([piece async for piece in stream]) == f"{ANSWER} "
    assert [piece async for piece in stream] == []
    await stream.close()


async def test_nothing_is_asked_before_it_is_read(engine: FakeEngine, llm: LlamaCpp) -> None:
    for stream in both(llm):
        await stream.close()
        assert [one async for one in stream] == []
    assert engine.connections == 0


@pytest.mark.parametrize("how", ["async with", "close", "aclose"])
async def test_closing_stops_the_engine(engine: FakeEngine, llm: LlamaCpp, how: str) -> None:
    engine.on(CHAT, begun)
    for stream in both(llm):
        engine.left.clear()
        if how == "async with":
            async with stream as same:
                await anext(same)
        elif how == "close":
            await anext(stream)
            await stream.close()
            await stream.close()  # twice is once
        else:
            async with aclosing(stream):
                await anext(stream)
        await asyncio.wait_for(engine.left.wait(), 20)
        assert [one async for one in stream] == []


async def test_closing_while_another_task_reads(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, begun)
    for stream in both(llm):
        engine.left.clear()
        await anext(stream)
        reading = asyncio.create_task(anext(stream))
        await until(is_read(stream), "the reading")
        async with asyncio.timeout(20):
            await stream.close()
            await engine.left.wait()
            with pytest.raises(StreamInterruptedError, match="The stream was closed while it was"):
                await reading


async def test_cancelling_who_reads_stops_the_engine(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, begun)
    for stream in both(llm):
        engine.left.clear()
        await anext(stream)
        reading = asyncio.create_task(anext(stream))
        await until(is_read(stream), "the reading")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(engine.left.wait(), 20)


async def test_an_error_within_the_block_closes_it(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, begun)
    with pytest.raises(KeyError):
        async with llm.stream(messages=MESSAGES) as stream:
            raise KeyError((await anext(stream))["object"])
    await asyncio.wait_for(engine.left.wait(), 20)
