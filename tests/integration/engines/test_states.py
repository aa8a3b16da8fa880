"""Engines that load, crash and come back: what the module says, and what the chat API does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from llm_provider import EngineLoadingError, LLMError, LLMProvider, StreamInterruptedError
from tests.integration.engines.conftest import House
from tests.integration.engines.running import CHAINS, READY_SECONDS, REAL, settings_of
from tests.integration.engines.serving import (
    CHAT,
    ChatApi,
    Served,
    events_of,
    finish_of,
    pieces_of,
    provider_of,
    text_of,
)
from tests.waiting import until_async

ANSWER = CHAINS["smoke"].answer
HELLO = {"messages": [{"role": "user", "content": "Are you there?"}]}
LONG: dict[str, object] = {
    # Its answer does not end within a few words.
    "messages": [{"role": "user", "content": "The boat is blue. " * 40}],
    "temperature": 0,
}


async def test_an_engine_that_loads_says_so(house: House, engine: str) -> None:
    """From its start on the engine is asked again and again; all it says is that it loads."""
    made = house.engine(engine, REAL, context=8192)
    seen: list[LLMError] = []
    async with provider_of(made) as provider:
        await asyncio.to_thread(made.start)
        loading = asyncio.create_task(provider.load())
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    await provider.ready()
                    break
                except LLMError as error:
                    seen.append(error)
                    if loading.done() and loading.exception():
                        # It was not even listening yet: told again, as the chat API does.
                        loading = asyncio.create_task(provider.load())
                await asyncio.sleep(0.005)
        await loading
        await provider.health()
        answer = await provider.chat(LONG | {"max_tokens": 4})
        capacity = await provider.capacity()
    made.remove()
    assert any(isinstance(error, EngineLoadingError) for error in seen), seen
    assert answer["usage"]["completion_tokens"] == 4
    assert capacity.context_size == 8192


async def asked(api: ChatApi, streamed: bool) -> str:
    """One answer's text, streamed or not; anything but a good answer fails."""
    async with api.client() as client:
        if not streamed:
            answer = await client.post(CHAT, json=HELLO)
            assert answer.status_code == 200, answer.text
            text: str = answer.json()["choices"][0]["message"]["content"]
            return text
        async with client.stream("POST", CHAT, json=HELLO | {"stream": True}) as answer:
            assert answer.status_code == 200, await answer.aread()
            return text_of([event async for event in events_of(answer)])


async def test_requests_are_held_until_the_engine_is_there(house: House, engine: str) -> None:
    made = house.engine(engine, "smoke", parallel=2)
    api = house.api(settings_of(made) | {"LLM_HOLD_SECONDS": str(READY_SECONDS)})
    await asyncio.to_thread(api.start)
    assert not await asyncio.to_thread(api.ready)
    waiting = [asyncio.create_task(asked(api, number % 2 == 0)) for number in range(6)]
    done, _ = await asyncio.wait(waiting, timeout=1)
    assert not done, [task.result() for task in done]
    await asyncio.to_thread(made.start)
    assert await asyncio.gather(*waiting) == [ANSWER] * 6
    assert await asyncio.to_thread(api.ready)

    # A crash, while nobody asks: who asks then is held just the same.
    await asyncio.to_thread(made.kill)
    waiting = [asyncio.create_task(asked(api, number % 2 == 0)) for number in range(6)]
    await until_async(
        api.ready, "the chat API to see that its engine is gone", lambda ready: not ready
    )
    await asyncio.to_thread(made.start)
    assert await asyncio.gather(*waiting) == [ANSWER] * 6
    api.stop()
    made.remove()


async def test_who_waits_too_long_is_told(house: House, engine: str) -> None:
    made = house.engine(engine, "smoke", parallel=1)
    api = house.api(settings_of(made) | {"LLM_HOLD_SECONDS": "1"})
    await asyncio.to_thread(api.start)
    async with api.client() as client:
        answers = [await client.post(CHAT, json=HELLO | {"stream": s}) for s in (False, True)]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_not_ready"
        assert int(answer.headers["retry-after"]) > 0
    api.stop()


@pytest.fixture
async def crashing(house: House, engine: str) -> AsyncGenerator[Served, None]:
    """An engine of its own, ready to be broken."""
    made = house.engine(engine, "endless", context=32768, parallel=2)
    api = house.api(settings_of(made) | {"LLM_HOLD_SECONDS": str(READY_SECONDS)})
    await asyncio.to_thread(made.start)
    await asyncio.to_thread(api.start)
    await until_async(api.ready, f"{engine} to load", seconds=READY_SECONDS)
    yield Served(made, api)
    api.stop()
    made.remove()


async def test_a_crash_interrupts_and_says_what_had_arrived(crashing: Served) -> None:
    engine = crashing.engine
    async with crashing.provider() as provider:
        events = []
        with pytest.raises(StreamInterruptedError) as caught:
            async for event in provider.stream(HELLO | {"max_tokens": 30000}):
                events.append(event)
                if len(events) == 30:
                    await asyncio.to_thread(engine.kill)
    said = text_of(events)
    assert len(said.split()) >= 20
    assert caught.value.text.startswith(said)
    assert (crashing.answer * 3000).startswith(caught.value.text)


async def test_a_crash_ends_the_api_s_stream_without_done(crashing: Served) -> None:
    body = HELLO | {"max_tokens": 30000, "stream": True}
    async with crashing.api.client() as client:
        raw = b""
        async with client.stream("POST", CHAT, json=body) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_raw():
                if not raw:
                    await asyncio.to_thread(crashing.engine.kill)
                raw += chunk
        assert b"[DONE]" not in raw
        assert b'"error"' in raw.rpartition(b"data: ")[2]
        # And it goes on with the engine that comes back.
        await asyncio.to_thread(crashing.engine.start)
        answer = await client.post(CHAT, json=HELLO | {"max_tokens": 2})
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == " one two"


async def loaded(provider: LLMProvider) -> None:
    """Wait until an engine that was just started has loaded its model."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                await provider.load()
                return await provider.ready()
            except LLMError:
                await asyncio.sleep(0.05)


@pytest.mark.engines("ollama")
async def test_ollama_s_runner_crashes_inside_it(house: House) -> None:
    """Ollama then ends the stream in good order, only without its end; it must not pass for one."""
    from tests.integration.engines.ollama import Ollama

    made = house.engine("ollama", "endless", parallel=1)
    assert isinstance(made, Ollama)
    await asyncio.to_thread(made.start)
    async with provider_of(made) as provider:
        await loaded(provider)
        events = []
        with pytest.raises(StreamInterruptedError):
            async for event in provider.stream(HELLO | {"max_tokens": 40000}):
                events.append(event)
                if len(events) == 30:
                    await asyncio.to_thread(made.kill_runner)
        assert len(pieces_of(events)) >= 20
        # It starts another runner for the next.
        events = [event async for event in provider.stream(HELLO | {"max_tokens": 3})]
        assert (text_of(events), finish_of(events)) == (" one two three", "length")
    made.remove()
