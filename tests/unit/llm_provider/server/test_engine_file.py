"""The engine file: another engine takes over, seen by clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.server.engine_state import EngineState

from ..fake import (
    CONTEXT,
    DONE,
    KEY,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    error_of,
    event,
    stream_of,
    until,
)
from .crowd import (
    BODY,
    Crowd,
    EngineFile,
    assert_all_answered,
    numbered,
    numbers,
    repointable,
    reported,
    seeds,
)


@pytest.fixture
def file(tmp_path: Path) -> EngineFile:
    return EngineFile(tmp_path / "engine")


@pytest.fixture
async def other() -> AsyncIterator[FakeEngine]:
    async with FakeEngine("ollama").serving() as fake:
        yield fake


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
        ("LLM_TASK=embed\n", "LLM_TASK is 'embed'; known are: chat, embedding, rerank."),
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


@pytest.mark.parametrize("defect", ["switch", "hold"])
async def test_a_defect_does_not_end_the_following(
    engine: FakeEngine,
    other: FakeEngine,
    file: EngineFile,
    keys: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    defect: str,
) -> None:
    """It is logged, once, and what the file says is applied as soon as that works."""
    file.point(engine)
    async with repointable(file, keys) as client:
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise RuntimeError("a defect")

            broken.setattr(EngineState, defect, fail)
            file.point(other, "LLM_MODEL=smoke", *(["LLM_HOLD=1"] if defect == "hold" else []))
            await until(lambda: "the engine file cannot be followed" in caplog.text)
            await asyncio.sleep(0.2)
        assert caplog.text.count("the engine file cannot be followed") == 1
        await reported(client, "provider", "ollama")
        await reported(client, "holding", defect == "hold")
        file.point(engine)
        await reported(client, "provider", "llamacpp")
        assert (await client.post(CHAT, json=BODY)).status_code == 200
