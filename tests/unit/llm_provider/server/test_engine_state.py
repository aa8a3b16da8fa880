"""The engine's state by itself: readiness, loading, changing over, retiring."""

from __future__ import annotations

import asyncio

import pytest

from llm_provider.errors import EngineLoadingError, EngineRefusedError, EngineUnreachableError
from llm_provider.providers.base import Capacity, LLMProvider
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.engine_state import EngineState
from llm_provider.server.ticket import Stopping

from ..fake import until
from .queue_stub import Stub, admitted, gone, lined, lose, watched


@pytest.fixture
async def stub() -> Stub:
    return Stub()


# The engine's state.


async def test_a_former_engine_does_not_matter(stub: Stub) -> None:
    async with lined(stub) as line:
        line.queue.engine.lost(Stub("former"), "gone")
        assert line.queue.open


async def test_an_engine_that_loads_when_told(stub: Stub) -> None:
    queue = AdmissionQueue(EngineState(stub, 1), 5)
    stub.problem = EngineLoadingError("Not loaded.")
    assert not await queue.engine.probe()
    assert stub.loads == 0  # a question changes nothing
    assert not await queue.engine.probe(load=True)
    assert stub.loads == 1
    stub.load_problem = EngineRefusedError("no such model", status=404, words="", error={})
    await queue.engine.probe(load=True)
    assert queue.engine.waiting_for == "Not loaded. Loading failed: no such model"
    stub.problem = None
    assert await queue.engine.probe()
    lose(queue, "Gone.")
    assert queue.engine.waiting_for == "Gone."
    stub.problem = EngineUnreachableError("Not there.")
    await queue.engine.probe(load=True)
    assert stub.loads == 2  # what is not there is not told anything


async def test_a_capacity_that_is_not_told_keeps_nobody_waiting(stub: Stub) -> None:
    stub.capacity_problem = EngineRefusedError("no", status=404, words="no", error={})
    queue = AdmissionQueue(EngineState(stub, 1), 5)
    assert await queue.engine.probe()
    assert (queue.open, queue.engine.capacity) == (True, Capacity())


async def test_watching_survives_a_defect(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    stub.problem = RuntimeError("a defect")
    queue = AdmissionQueue(EngineState(stub, 1), 5)
    async with watched(queue):
        await until(lambda: "could not be read" in caplog.text)
        assert not queue.open
        stub.problem = None
        await until(lambda: queue.open)
        lose(queue)
        await until(lambda: queue.open)


async def test_watching_finds_a_loss_by_itself(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_provider.server.engine_state.RECHECK_SECONDS", 0.02)
    queue = AdmissionQueue(EngineState(stub, 1), 5)
    async with watched(queue):
        await until(lambda: queue.open)
        stub.problem = EngineUnreachableError("Gone.")
        await until(lambda: not queue.open)
        assert queue.engine.waiting_for == "Gone."
        stub.problem = None
        await until(lambda: queue.open)


async def test_what_is_asked_of_a_former_engine_does_not_open_for_the_new(stub: Stub) -> None:
    goes_on = asyncio.Event()

    class Slow(Stub):
        async def capacity(self) -> Capacity:
            await goes_on.wait()
            return Capacity(1)

    queue = AdmissionQueue(EngineState(Slow(), 1), 5)
    asked = asyncio.create_task(queue.engine.probe())
    await asyncio.sleep(0)
    stub.problem = EngineLoadingError("It loads.")
    queue.engine.switch(stub, 3)
    goes_on.set()
    assert not await asked
    assert (queue.open, queue.engine.capacity) == (False, Capacity())


async def test_a_loss_is_logged_once(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    stub.problem = EngineUnreachableError("Gone.")
    queue = AdmissionQueue(EngineState(stub, 1), 5)
    for _ in range(3):
        await queue.engine.probe()
    assert [record.getMessage() for record in caplog.records] == ["engine not ready: Gone."]


# Changing over.


async def test_changing_over_loses_nobody(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b", "c")
        new = Stub("new")
        line.queue.engine.switch(new, 2)
        assert line.queue.engine.waiting_for == "stub has not been asked yet."
        await line.come("d")
        # What runs ends in its own time, where it began; the others have the new one to themselves.
        assert (line.queue.leaving, line.numbers()) == (1, (0, 0, 3))
        assert await line.queue.engine.probe()
        assert (line.queue.leaving, line.numbers()) == (1, (2, 1, 0))
        await asyncio.sleep(0)
        assert (line.tickets["a"].provider, line.tickets["b"].provider) == (stub, new)
        assert not stub.closed
        assert not line.queue.empty
        await line.leave("a")
        await until(lambda: stub.closed)
        assert (line.queue.leaving, line.numbers()) == (0, (2, 1, 0))
        await line.leave("b", "c", "d")
        assert line.entered == ["a", "b", "c", "d"]
        assert not new.closed


async def test_an_engine_that_nobody_asks_is_closed_at_once(stub: Stub) -> None:
    async with lined(stub) as line:
        line.queue.engine.switch(Stub("new"), 1)
        await until(lambda: stub.closed)


async def test_changing_over_twice_closes_both(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a")
        second, third = Stub("second"), Stub("third")
        line.queue.engine.switch(second, 1)
        await line.queue.engine.probe()
        await line.come("b")
        line.queue.engine.switch(third, 1)
        assert line.queue.leaving == 2
        await line.leave("a")
        await asyncio.sleep(0)
        assert line.queue.leaving == 1
        await line.leave("b")
        await until(lambda: stub.closed and second.closed)
        assert not third.closed


async def test_what_had_not_begun_at_the_former_engine_goes_to_the_new(stub: Stub) -> None:
    new = Stub("new")
    async with lined(stub) as line:
        queue = line.queue
        begun = asyncio.Event()

        async def question(provider: LLMProvider) -> str:
            begun.set()
            while not provider.closed:  # type: ignore[attr-defined]
                if provider is new:
                    return "an answer"
                await asyncio.sleep(0.01)
            raise EngineUnreachableError("closed")

        async def request() -> str:
            async with admitted(queue) as ticket:
                return await ticket.ask(question)

        asked = asyncio.create_task(request())
        await begun.wait()
        queue.engine.switch(new, 1)
        stub.closed = True  # the engine goes before it has begun
        assert await queue.engine.probe()
        assert await asyncio.wait_for(asked, 2) == "an answer"


async def test_stopping_sends_away_who_waits(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b", "c")
        line.queue.stop()
        await line.come("d")
        assert all(isinstance(error, Stopping) for error in await gone(line, "b", "c", "d"))
        assert line.numbers() == (1, 0, 0)
        with pytest.raises(Stopping):
            await line.queue.retry(line.tickets["a"])
        await line.leave("a")


async def test_who_retires_holds_nobody_on_purpose(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        line.queue.engine.hold("Held.")
        await line.come("a", "b")
        assert line.numbers() == (0, 0, 2)
        assert not line.queue.empty
        line.queue.engine.retire()
        assert line.numbers() == (1, 1, 0)
        line.queue.engine.hold("Held again.")
        assert (line.queue.engine.on_hold, line.queue.open) == (False, True)
        await line.come("c")  # over a connection that it still has
        await line.leave("a", "b")
        assert not line.queue.empty
        await line.leave("c")
        assert line.queue.empty
        assert line.entered == ["a", "b", "c"]


async def test_who_retires_stays_with_its_engine(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b")
        line.queue.engine.retire()
        line.queue.engine.switch(Stub("new"), 2)
        assert (line.queue.engine.provider, line.queue.engine.parallel, stub.closed) == (
            stub,
            1,
            False,
        )
        assert line.numbers() == (1, 1, 0)
        await line.leave("a", "b")


async def test_a_stop_ends_the_watch(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_provider.server.engine_state.RECHECK_SECONDS", 0.01)
    queue = AdmissionQueue(EngineState(stub, 1), 5)
    watch = asyncio.create_task(queue.engine.watch())
    await until(lambda: queue.engine.ready)
    assert not watch.done()
    queue.stop()
    await asyncio.wait_for(watch, 2)
