"""Requests in line, held, changed over to another engine: seen by clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp, LLMProvider, Ollama
from llm_provider.base import CHAT

from .fake import (
    AUTH,
    CONTEXT,
    DONE,
    KEY,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    error_of,
    event,
    free_port,
    serve_api,
    stream_of,
    until,
)

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def llm(engine: FakeEngine) -> AsyncIterator[LlamaCpp]:
    """Patient: an engine that a test has paused is not to be given up."""
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=60) as provider:
        yield provider


@asynccontextmanager
async def clients(
    provider: LLMProvider | None, keys: Path, **environ: str
) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with (
        serve_api(provider, keys, **environ) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=20, limits=limits) as client,
    ):
        yield client


class Crowd:
    """Requests that come one after the other, each with its number as the seed."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    async def come(self, count: int, **fields: Any) -> None:
        """Have so many more come, every other one streamed; return once all are in line."""
        for _ in range(count):
            number = len(self.tasks)
            body = BODY | {"seed": number, "stream": number % 2 == 1} | fields
            self.tasks.append(asyncio.create_task(self._client.post(CHAT, json=body)))
            # Over one connection each they might overtake one another before they are in line.
            await self._in_line()

    async def _in_line(self) -> None:
        for _ in range(500):
            there = await numbers(self._client)
            if sum(there) >= len([task for task in self.tasks if not task.done()]):
                return
            await asyncio.sleep(0.005)
        pytest.fail(f"in flight, queued, held: {there}; not all who came are in line")

    async def answers(self) -> list[httpx.Response]:
        return list(await asyncio.gather(*self.tasks))


def seeds(engine: FakeEngine) -> list[int]:
    return [body["seed"] for body in engine.asked]


async def numbers(client: httpx.AsyncClient) -> tuple[int, int, int]:
    """Requests in flight, queued, held."""
    report = (await client.get("/ready")).json()
    return report["in_flight"], report["queued"], report["held"]


async def numbered(client: httpx.AsyncClient, wanted: tuple[int, int, int]) -> None:
    """Wait until it is so."""
    for _ in range(500):
        if await numbers(client) == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{wanted} in flight, queued, held did not come about: {await numbers(client)}")


async def reported(client: httpx.AsyncClient, name: str, wanted: object) -> None:
    """Wait until /ready reports it so."""
    for _ in range(500):
        if (await client.get("/ready")).json()[name] == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{name} did not become {wanted}")


def assert_all_answered(answers: list[httpx.Response]) -> None:
    for number, answer in enumerate(answers):
        assert answer.status_code == 200
        assert (
            (answer.json() == completion()) if number % 2 == 0 else (answer.content[:5] == b"data:")
        )


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
    assert f'edge_llm_requests_total{{outcome="client_left",route="{CHAT}"}} 2.0' in metrics


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


# Changed over, by LLM_ENGINE_FILE.


class EngineFile:
    """Replaced whole, as whoever changes engines does it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str) -> None:
        fresh = self.path.with_name("fresh")
        fresh.write_text(text)
        fresh.replace(self.path)

    def point(self, engine: FakeEngine, *more: str) -> None:
        lines = [f"LLM_PROVIDER={engine.kind}", f"LLM_BASE_URL={engine.url}", *more]
        self.write("\n".join(["# which engine", "", *lines, ""]))


@pytest.fixture
def file(tmp_path: Path) -> EngineFile:
    return EngineFile(tmp_path / "engine")


@pytest.fixture
async def other() -> AsyncIterator[FakeEngine]:
    async with FakeEngine("ollama").serving() as fake:
        yield fake


@asynccontextmanager
async def repointable(
    file: EngineFile, keys: Path, **environ: str
) -> AsyncIterator[httpx.AsyncClient]:
    environ = {"PARALLEL": "1", "LLM_MODEL": MODEL, "LLM_ENGINE_FILE": str(file.path)} | environ
    async with clients(None, keys, **environ) as client:
        yield client


async def test_another_engine_while_requests_run_and_wait(
    engine: FakeEngine, other: FakeEngine, file: EngineFile, keys: Path
) -> None:
    """Those that run end where they began; the others go on to the new engine, in order."""
    file.point(engine)
    async with repointable(file, keys) as client:
        goes_on = engine.paused()
        crowd = Crowd(client)
        await crowd.come(6)
        file.point(other, "LLM_MODEL=smoke", "PARALLEL=2")
        await reported(client, "leaving", 1)
        await asyncio.wait_for(asyncio.gather(*crowd.tasks[1:]), 5)
        await crowd.come(2)
        await asyncio.wait_for(asyncio.gather(*crowd.tasks[6:]), 5)
        # Not hurried: the engine before has it to its end.
        assert not crowd.tasks[0].done()
        assert await numbers(client) == (1, 0, 0)
        goes_on.set()
        assert_all_answered(await crowd.answers())
        await reported(client, "leaving", 0)
        report = (await client.get("/ready")).json()
    assert seeds(engine) == [0]
    assert sorted(seeds(other)) == [1, 2, 3, 4, 5, 6, 7]
    assert seeds(other)[::2] == sorted(seeds(other)[::2])
    assert other.most_running == 2
    assert (report["provider"], report["context_size"], report["parallel"]) == (
        "ollama",
        CONTEXT,
        2,
    )


async def test_other_model_key_and_slots(
    engine: FakeEngine, file: EngineFile, keys: Path, tmp_path: Path
) -> None:
    (tmp_path / "engine_key").write_text("of-the-engine\n")
    file.point(engine)
    environ = {"LLM_MODEL_ALIASES": "gpt-4o", "LLM_API_KEY": "of-the-environment"}
    async with repointable(file, keys, **environ) as client:
        await client.post(CHAT, json=BODY)
        assert engine.posts[-1].headers["authorization"] == "Bearer of-the-environment"
        file.point(engine, "LLM_MODEL=next", f"LLM_API_KEY_FILE={tmp_path / 'engine_key'}")
        await reported(client, "model", "next")
        assert (await client.post(CHAT, json=BODY | {"model": "gpt-4o"})).status_code == 200
        assert engine.asked[-1]["model"] == "next"
        assert engine.posts[-1].headers["authorization"] == "Bearer of-the-engine"
        assert (await client.post(CHAT, json=BODY | {"model": MODEL})).status_code == 404
        metrics = (await client.get("/metrics")).text
        assert 'edge_llm_engine_ready{model="next",provider="llamacpp"} 1.0' in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_is_named_is_the_one_that_answers(
    engine: FakeEngine, file: EngineFile, keys: Path, stream: bool
) -> None:
    """Held through a change of model, who named the former is told; who named none gets the new."""
    file.point(engine, "LLM_HOLD=1")
    async with repointable(file, keys, LLM_MODEL_ALIASES="gpt-4o") as client:
        await reported(client, "holding", True)
        tasks = [
            asyncio.create_task(client.post(CHAT, json=BODY | {"model": name, "stream": stream}))
            for name in (MODEL, None, "default", "gpt-4o")
        ]
        await numbered(client, (0, 0, 4))
        file.point(engine, "LLM_MODEL=next")
        former, *others = await asyncio.gather(*tasks)
    assert former.status_code == 404
    assert error_of(former)["code"] == "model_not_found"
    assert "served: next, gpt-4o" in error_of(former)["message"]
    assert [answer.status_code for answer in others] == [200, 200, 200]
    assert [body["model"] for body in engine.asked] == ["next"] * 3


async def test_who_still_runs_when_the_engine_before_goes_is_told(
    engine: FakeEngine, other: FakeEngine, file: EngineFile, keys: Path
) -> None:
    goes = asyncio.Event()

    async def begun(exchange: Exchange) -> None:
        if exchange.body["stream"]:
            await exchange.begin_stream()
            await exchange.chunk(event("Hel"))
        await goes.wait()
        raise ConnectionError

    engine.on(CHAT, begun)
    file.point(engine)
    async with repointable(file, keys, PARALLEL="2") as client:
        crowd = Crowd(client)
        await crowd.come(3)
        await until(lambda: engine.running == 2)
        file.point(other)
        waiting = await asyncio.wait_for(crowd.tasks[2], 15)
        goes.set()
        whole, streamed, _ = await asyncio.wait_for(crowd.answers(), 15)
    assert (whole.status_code, error_of(whole)["code"]) == (502, "engine_error")
    assert streamed.status_code == 200
    assert streamed.content.startswith(event("Hel"))
    assert DONE not in streamed.content
    assert json.loads(streamed.text.rpartition("data: ")[2])["error"]["code"] == "engine_error"
    assert (waiting.status_code, waiting.json()) == (200, completion())
    assert (seeds(engine), seeds(other)) == ([0, 1], [2])


async def test_holding_on_purpose(engine: FakeEngine, file: EngineFile, keys: Path) -> None:
    """As from the first request on, so while it runs; the engine's state does not matter."""
    file.point(engine, "LLM_HOLD=1")
    async with repointable(file, keys) as client:
        for _ in range(2):
            await reported(client, "holding", True)
            answer = await client.get("/ready")
            assert answer.status_code == 503
            assert "held while the engine is being changed" in answer.text
            before = len(engine.posts)
            crowd = Crowd(client)
            await crowd.come(3)
            assert await numbers(client) == (0, 0, 3)
            metrics = (await client.get("/metrics")).text
            assert "edge_llm_holding 1.0" in metrics
            assert "edge_llm_requests_held 3.0" in metrics
            assert len(engine.posts) == before
            file.point(engine)
            assert_all_answered(await crowd.answers())
            file.point(engine, "LLM_HOLD=1")


async def test_a_hold_lets_those_that_run_end(
    engine: FakeEngine, file: EngineFile, keys: Path
) -> None:
    file.point(engine)
    async with repointable(file, keys) as client:
        goes_on = engine.paused()
        crowd = Crowd(client)
        await crowd.come(2)
        file.point(engine, "LLM_HOLD=1")
        await numbered(client, (1, 0, 1))
        goes_on.set()
        assert (await crowd.tasks[0]).status_code == 200
        assert await numbers(client) == (0, 0, 1)
        file.point(engine)
        assert_all_answered(await crowd.answers())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; wanted: LLM_PROVIDER=llamacpp"),
        ("LLM_PROVIDER=gpt\n", "LLM_PROVIDER is 'gpt', which is not known"),
        ("LLM_PROVIDER=ollama\nLLM_API_KEY=a-secret\n", "holds 'LLM_API_KEY'; known are: CTX_SIZE"),
        ("LLM_PROVIDER ollama\n", "holds 'LLM_PROVIDER ollama'; known are: CTX_SIZE"),
        ("PARALLEL=many\n", "PARALLEL is 'many'"),
        ("CTX_SIZE=4k\n", "CTX_SIZE is '4k'"),
        ("LLM_HOLD=-1\n", "LLM_HOLD is '-1'"),
        ("LLM_BASE_URL=nowhere\n", "The address 'nowhere' is not usable"),
        ("LLM_API_KEY_FILE=/absent\n", "LLM_API_KEY_FILE cannot be read"),
    ],
)
async def test_a_bad_file_changes_nothing(
    engine: FakeEngine,
    file: EngineFile,
    keys: Path,
    caplog: pytest.LogCaptureFixture,
    text: str,
    sentence: str,
) -> None:
    caplog.set_level(logging.INFO)
    file.point(engine)
    async with repointable(file, keys) as client:
        before = (await client.get("/ready")).json()
        file.write(text)
        await until(lambda: "the engine before stays" in caplog.text)
        assert sentence in caplog.text
        assert "a-secret" not in caplog.text
        assert (await client.get("/ready")).json() == before
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        file.path.unlink()
        await until(lambda: caplog.text.count("the engine before stays") == 2)
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        # And a good one is followed again.
        file.point(engine, "LLM_MODEL=next")
        await reported(client, "model", "next")


async def test_to_and_fro_under_load(
    engine: FakeEngine, other: FakeEngine, file: EngineFile, keys: Path
) -> None:
    """Engines are changed again and again, and keys rotated, while clients ask: not one is lost."""
    file.point(engine)
    answers: list[httpx.Response] = []
    async with repointable(file, keys, PARALLEL="2") as client:
        stop = asyncio.Event()

        async def ask(stream: bool) -> None:
            while not stop.is_set():
                answers.append(await client.post(CHAT, json=BODY | {"stream": stream}))

        asking = [asyncio.create_task(ask(n % 2 == 0)) for n in range(6)]
        for n in range(6):
            fresh = keys.with_name("fresh_keys")
            fresh.write_text(f"key-{n}\n{KEY}\n")
            fresh.replace(keys)
            target = (other, engine)[n % 2]
            seen = len(target.asked)
            file.point(target)
            await until(lambda: len(target.asked) > seen + 3)  # noqa: B023
        stop.set()
        await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    wholes = [one.json() for one in answers if one.headers["Content-Type"] == "application/json"]
    streams = {one.content for one in answers if one.content.startswith(b"data")}
    assert all(whole == completion() for whole in wholes)
    assert streams == {stream_of(), stream_of(kind="ollama")}
    assert len(engine.asked) + len(other.asked) == len(answers)  # and nothing twice


async def test_names_beside_the_engine_change_nothing(
    engine: FakeEngine, file: EngineFile, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is written anew: what runs is neither waited for nor cut off."""
    file.point(engine)
    async with repointable(file, keys) as client:
        goes_on = engine.paused()
        crowd = Crowd(client)
        await crowd.come(2)
        for more in ("# a remark", "LLM_HOLD=0", "LLM_HOLD="):
            file.point(engine, more)
            await asyncio.sleep(0.2)
        await numbered(client, (1, 1, 0))
        goes_on.set()
        assert_all_answered(await crowd.answers())
    assert "engine not ready" not in caplog.text
