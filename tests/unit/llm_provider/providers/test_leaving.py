"""Streams that are left, closed or cancelled; many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_provider import (
    EngineUnreachableError,
    LlamaCpp,
    LLMProvider,
    Ollama,
    StreamInterruptedError,
)
from llm_provider.providers.routes import CHAT

from ..fake import MODEL, Exchange, FakeEngine, completion, event, stream_of, until

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES, "model": "ignored"}


async def whole(llm: LLMProvider) -> bytes:
    return b"".join([chunk async for chunk in llm.raw_stream(CHAT, BODY)])


@pytest.fixture
async def ollama() -> AsyncIterator[tuple[FakeEngine, Ollama]]:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url, timeout=60) as llm,
    ):
        yield engine, llm


# Leaving.


async def endless(exchange: Exchange) -> None:
    if exchange.body["stream"]:
        await exchange.begin_stream()
    while True:
        if exchange.body["stream"]:
            await exchange.chunk(event("on "))
        await asyncio.sleep(0.005)


async def test_leaving_a_stream_stops_the_engine(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, endless)
    for stream in (llm.stream(BODY), llm.raw_stream(CHAT, BODY), llm.generate_stream("Hello")):
        engine.left.clear()
        await anext(stream)
        assert engine.running == 1
        await stream.aclose()
        await asyncio.wait_for(engine.left.wait(), 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_stops_the_engine(engine: FakeEngine, llm: LlamaCpp, stream: bool) -> None:
    engine.on(CHAT, endless)
    task: asyncio.Task[object]
    task = asyncio.create_task(whole(llm) if stream else llm.chat(BODY))
    await until(lambda: engine.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(engine.left.wait(), 1)


async def test_closing_a_provider_ends_its_streams(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, endless)
    stream = llm.stream(BODY)
    await anext(stream)
    await llm.close()
    with pytest.raises(StreamInterruptedError):
        async for _ in stream:
            pass
    with pytest.raises(EngineUnreachableError, match="this provider is closed"):
        await llm.chat(BODY)
    await llm.close()  # twice is once


async def test_an_answer_cut_on_this_side_is_not_whole(engine: FakeEngine, llm: LlamaCpp) -> None:
    """Even where it tells no length, and what came of it is JSON."""

    async def unending(exchange: Exchange) -> None:
        await exchange.send(b'HTTP/1.1 200 OK\r\n\r\n{"choices": [{}]}')
        await asyncio.sleep(60)

    engine.on(CHAT, unending)
    task = asyncio.create_task(llm.chat(BODY))
    await until(lambda: engine.running == 1)
    await asyncio.sleep(0.05)
    await llm.close()
    with pytest.raises(StreamInterruptedError):
        await task


async def test_many_at_a_time(engine: FakeEngine) -> None:
    # Long enough for a busy machine to accept all of them.
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=60) as llm:
        answers = await asyncio.gather(*(whole(llm) for _ in range(64)))
    assert set(answers) == {stream_of()}
    assert len(engine.requests) == 64


async def test_ollamas_answer_that_breaks_off(ollama: tuple[FakeEngine, Ollama]) -> None:
    engine, llm = ollama
    engine.on(CHAT, lambda x: x.answer(completion("half of", None)))
    with pytest.raises(
        StreamInterruptedError, match=r"an answer that breaks off: no finish_reason\.$"
    ):
        await llm.chat(BODY)
