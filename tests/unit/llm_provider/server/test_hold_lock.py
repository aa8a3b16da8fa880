"""A hold ends with the process that asked for it, and no request is lost or left waiting."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.server import hold_lock

from ..fake import FakeEngine, error_of, free_port
from .crowd import (
    BODY,
    Crowd,
    EngineFile,
    assert_all_answered,
    numbered,
    numbers,
    repointable,
    reported,
)


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a hold goes on without its process."""
    monkeypatch.setattr(hold_lock, "GRACE_SECONDS", 2.0)
    return 2.0


@pytest.fixture
def file(tmp_path: Path, engine: FakeEngine) -> EngineFile:
    """LLM_ENGINE_FILE, which points to `engine`."""
    made = EngineFile(tmp_path / "engine")
    made.point(engine)
    return made


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The lock of a hold, as a process has it that changes the engine: a new file each time."""
    fresh = path.with_name("fresh.lock")
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    fresh.replace(path.with_name(hold_lock.LOCK))
    try:
        yield
    finally:
        os.close(descriptor)


async def test_a_hold_without_its_process_lets_requests_pass(
    engine: FakeEngine, file: EngineFile, keys: Path, grace: float
) -> None:
    async with repointable(file, keys) as client:
        with held(file.path):
            file.point(engine, "LLM_HOLD=60")
            await reported(client, "holding", True)
            crowd = Crowd(client)
            await crowd.come(3)
            await asyncio.sleep(2 * grace)
            assert await numbers(client) == (0, 0, 3)
        gone = time.monotonic()
        assert await numbers(client) == (0, 0, 3)  # somebody may take over
        assert_all_answered(await crowd.answers())
        assert grace * 0.8 < time.monotonic() - gone < grace + 3
        await reported(client, "holding", False)
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_where_no_engine_is_there_either_requests_are_refused_at_once(
    engine: FakeEngine, file: EngineFile, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(f"LLM_PROVIDER=llamacpp\nLLM_BASE_URL=http://127.0.0.1:{free_port()}\nLLM_HOLD=60\n")
    with held(file.path):
        pass
    async with repointable(file, keys, LLM_HOLD_SECONDS="30") as client:
        crowd = Crowd(client)  # held for a moment at most, or refused already
        await crowd.come(2)
        begun = time.monotonic()
        answers = [*await crowd.answers(), await client.post(CHAT, json=BODY)]
        assert time.monotonic() - begun < 10
        for answer in answers:
            assert answer.status_code == 503
            assert "Retry-After" in answer.headers
            error = error_of(answer)
            assert error["code"] == "engine_not_ready"
            assert "A change of the engine was interrupted, and nothing ends it." in str(
                error["message"]
            )
        assert "the hold is ended: the process that held requests is gone" in caplog.messages
        # Whoever takes the change up again holds them again, and an engine that comes has them.
        with held(file.path):
            await reported(client, "holding", True)
            crowd = Crowd(client)
            await crowd.come(2)
            file.point(engine)
            assert_all_answered(await crowd.answers())
    assert len(engine.asked) == 2


async def test_an_engine_that_died_meanwhile_is_not_waited_for(
    engine: FakeEngine, file: EngineFile, keys: Path
) -> None:
    """It was ready when the hold began, and nobody has asked it since."""
    async with repointable(file, keys, LLM_HOLD_SECONDS="30") as client:
        await reported(client, "ready", True)
        with held(file.path):
            file.point(engine, "LLM_HOLD=60")
            await reported(client, "holding", True)
            crowd = Crowd(client)
            await crowd.come(2)
            engine.loading = True
        begun = time.monotonic()
        assert [each.status_code for each in await crowd.answers()] == [503, 503]
        assert time.monotonic() - begun < 10
        engine.loading = False
        await reported(client, "ready", True)
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_hold_goes_on_where_another_process_takes_over(
    engine: FakeEngine, file: EngineFile, keys: Path, grace: float
) -> None:
    async with repointable(file, keys) as client:
        with held(file.path):
            file.point(engine, "LLM_HOLD=60")
            await reported(client, "holding", True)
            crowd = Crowd(client)
            await crowd.come(2)
        await asyncio.sleep(grace / 2)
        with held(file.path):
            await asyncio.sleep(2 * grace)
            assert await numbers(client) == (0, 0, 2)
            file.point(engine)
            assert_all_answered(await crowd.answers())


async def test_a_hold_that_ended_begins_again_with_another_process(
    engine: FakeEngine, file: EngineFile, keys: Path
) -> None:
    async with repointable(file, keys) as client:
        with held(file.path):
            file.point(engine, "LLM_HOLD=60")
            await reported(client, "holding", True)
        await reported(client, "holding", False)
        with held(file.path):
            await reported(client, "holding", True)
            crowd = Crowd(client)
            await crowd.come(1)
            await numbered(client, (0, 0, 1))
        assert_all_answered(await crowd.answers())


async def test_a_lock_that_cannot_be_looked_at_is_nobodys(
    engine: FakeEngine, file: EngineFile, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = file.path.with_name(hold_lock.LOCK)
    lock.symlink_to(lock)
    file.point(engine, "LLM_HOLD=60")
    async with repointable(file, keys) as client:
        await reported(client, "holding", False)
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    assert f"{lock} cannot be opened" in caplog.text
