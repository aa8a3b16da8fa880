"""Requests in the queue and held: seen by clients over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llm_provider import LlamaCpp, Ollama
from llm_provider.providers.routes import CHAT

from ..fake import CONTEXT, MODEL, Exchange, FakeEngine, error_of, free_port, stream_of, until
from .crowd import BODY, Crowd, assert_all_answered, clients, numbered, numbers, seeds


@pytest.fixture
async def llm(engine: FakeEngine) -> AsyncIterator[LlamaCpp]:
    """Patient: an engine that a test has paused is not to be given up."""
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=60) as provider:
        yield provider


# In line.


async def test_slots_and_the_bounded_queue(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    goes_on = engine.paused()
    crowd = Crowd(client)
    await crowd.come(2)
    await until(lambda: engine.running == 2)
    for number in range(2, 2 + 64):
        body = BODY | {"seed": number}
        crowd.tasks.append(asyncio.create_task(client.post(CHAT, json=body)))
        await asyncio.sleep(0.003)
    await numbered(client, (2, 64, 0))
    for stream in (False, True):
        refused = await client.post(CHAT, json=BODY | {"stream": stream})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 0
        assert error_of(refused)["code"] == "queue_full"
        assert error_of(refused)["type"] == "rate_limit_error"
    goes_on.set()
    assert {answer.status_code for answer in await crowd.answers()} == {200}
    assert engine.most_running == 2
    assert len(seeds(engine)) == 66


async def test_first_come_first_served(engine: FakeEngine, llm: LlamaCpp, keys: Path) -> None:
    async with clients(llm, keys, PARALLEL="1") as client:
        goes_on = engine.paused()
        crowd = Crowd(client)
        await crowd.come(12)
        assert await numbers(client) == (1, 11, 0)
        goes_on.set()
        assert_all_answered(await crowd.answers())
    assert seeds(engine) == list(range(12))
    assert engine.most_running == 1


async def test_a_queued_client_that_leaves_never_reaches_the_engine(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    goes_on = engine.paused()
    crowd = Crowd(client)
    await crowd.come(3)
    crowd.tasks[2].cancel()
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=BODY, timeout=httpx.Timeout(20, read=0.1))
    await numbered(client, (2, 0, 0))
    goes_on.set()
    assert [(await task).status_code for task in crowd.tasks[:2]] == [200, 200]
    assert seeds(engine) == [0, 1]
    metrics = (await client.get("/metrics")).text
    left = f'edge_llm_requests_total{{key="key-1",outcome="client_left",route="{CHAT}"}} 2.0'
    assert left in metrics


async def test_a_held_client_that_leaves_never_reaches_the_engine(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.loading = True
    held = asyncio.create_task(client.post(CHAT, json=BODY | {"seed": 0}))
    await numbered(client, (0, 0, 1))
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=BODY | {"seed": 1}, timeout=httpx.Timeout(20, read=0.1))
    before = len(engine.posts)
    engine.loading = False
    assert (await held).status_code == 200
    assert {request.body["seed"] for request in engine.posts[before:]} == {0}


async def test_conversations_that_share_a_context_run_together_as_far_as_it_has_room(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    """Together they would outgrow it, and llama-server would give all of them up."""
    async with clients(llm, keys, PARALLEL="4") as client:
        await client.get("/ready")
        goes_on = engine.paused()
        crowd = Crowd(client)
        await crowd.come(4, max_tokens=CONTEXT // 2 - 100)
        assert await numbers(client) == (2, 2, 0)
        goes_on.set()
        assert_all_answered(await crowd.answers())
    assert (engine.most_running, seeds(engine)) == (2, [0, 1, 2, 3])


async def test_a_request_for_several_answers_takes_several_slots(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async with clients(llm, keys, PARALLEL="3") as client:
        await client.get("/ready")
        goes_on = engine.paused()
        crowd = Crowd(client)
        await crowd.come(4, n=2, max_tokens=10)
        assert await numbers(client) == (1, 3, 0)
        goes_on.set()
        assert_all_answered(await crowd.answers())
    assert engine.most_running == 1


async def test_what_was_given_up_for_lack_of_room_runs_again_alone(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    first: set[int] = set()
    all_there = asyncio.Event()
    alone = True

    async def crowded(exchange: Exchange) -> None:
        nonlocal alone
        seed = exchange.body["seed"]
        if seed not in first:
            first.add(seed)
            if len(first) == 3:
                all_there.set()
            await all_there.wait()
            error = {"code": 500, "message": "Context size has been exceeded."}
            await exchange.answer({"error": error}, 500)
            return
        alone = alone and engine.running == 1
        await engine.chat(exchange)

    engine.on(CHAT, crowded)
    async with clients(llm, keys, PARALLEL="3") as client:
        crowd = Crowd(client)
        await crowd.come(3, max_tokens=10)
        assert_all_answered(await crowd.answers())
    assert alone
    assert sorted(seeds(engine)) == [0, 0, 1, 1, 2, 2]
    assert seeds(engine)[3:] == [0, 1, 2]


async def test_what_has_no_room_even_alone_is_told(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    error = {"code": 500, "message": "Context size has been exceeded."}
    engine.on(CHAT, lambda x: x.answer({"error": error}, 500))
    answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 502
    assert "Context size has been exceeded" in error_of(answer)["message"]
    assert len(engine.asked) == 2


# Held.


async def test_requests_are_held_in_order_while_the_engine_loads(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    engine.loading = True
    async with clients(llm, keys, PARALLEL="1") as client:
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert answer.json()["error"]["code"] == "engine_not_ready"
        assert "is loading its model: Loading model" in answer.json()["error"]["message"]
        crowd = Crowd(client)
        await crowd.come(6)
        assert await numbers(client) == (0, 0, 6)
        assert engine.posts == []
        engine.loading = False
        assert_all_answered(await crowd.answers())
    assert seeds(engine) == list(range(6))


async def test_requests_are_held_over_an_engines_restart(keys: Path) -> None:
    """What was running when it fell is told; what had not begun loses nothing."""
    port = free_port()
    engine = FakeEngine()
    async with (
        LlamaCpp(model=MODEL, base_url=f"http://127.0.0.1:{port}") as llm,
        clients(llm, keys, PARALLEL="1") as client,
    ):
        crowd = Crowd(client)
        async with engine.serving(port):
            assert (await client.post(CHAT, json=BODY | {"seed": -1})).status_code == 200
            engine.paused()
            await crowd.come(5)
            await until(lambda: engine.running == 1)
        cut, *_ = await asyncio.gather(crowd.tasks[0])
        assert (cut.status_code, error_of(cut)["code"]) == (502, "engine_error")
        await numbered(client, (0, 0, 4))
        engine.on(CHAT, engine.chat)
        async with engine.serving(port):
            answers = await crowd.answers()
        for number, answer in enumerate(answers[1:], 1):
            assert answer.status_code == 200
            if number % 2:
                assert answer.content == stream_of()
    assert seeds(engine) == [-1, 0, 1, 2, 3, 4]  # and nothing twice


@pytest.mark.parametrize("calls_itself_ready", [True, False])
async def test_holding_is_bounded(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, calls_itself_ready: bool
) -> None:
    loading = {"error": {"message": "Loading model"}}
    engine.on(CHAT, lambda x: x.answer(loading, 503))
    if not calls_itself_ready:
        engine.on("/health", lambda x: x.answer(loading, 503))
    async with clients(llm, keys, LLM_HOLD_SECONDS="0.4") as client:
        crowd = Crowd(client)
        await asyncio.wait_for(crowd.come(5), 10)
        answers = await asyncio.wait_for(crowd.answers(), 10)
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert error_of(answer)["code"] == "engine_not_ready"
        assert "Loading model" in error_of(answer)["message"]


async def test_ollama_is_told_to_load(keys: Path) -> None:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url) as llm,
        clients(llm, keys) as client,
    ):
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert engine.paths().index("/api/generate") < engine.paths().index(CHAT)
        report = (await client.get("/ready")).json()
        assert report["provider"] == "ollama"
        assert report["gpu_share"] == 1.0
        # Another had it drop the model: it is loaded again, and the request waits for that.
        engine.loaded = ["another:latest"]
        assert (await client.get("/ready")).status_code == 503
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert engine.loaded == [f"{MODEL}:latest"]


async def test_ready_says_why_loading_fails(keys: Path) -> None:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url) as llm,
    ):
        engine.on("/api/generate", lambda x: x.answer({"error": "model 'smoke' not found"}, 404))
        async with clients(llm, keys) as client:
            await until(lambda: "/api/generate" in engine.paths())
            await asyncio.sleep(0.05)
            answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "model 'smoke' not found" in answer.json()["error"]["message"]
