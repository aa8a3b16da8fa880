"""The admission queue by itself: order, bounds, holding, cancellation."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_provider.errors import EngineLoadingError
from llm_provider.providers.base import Capacity
from llm_provider.server.admission import QUEUE, AdmissionQueue
from llm_provider.server.engine_state import EngineState
from llm_provider.server.ticket import QueueFull
from llm_provider.server.token_estimate import TokenEstimate

from ..fake import until
from .queue_stub import Line, Sharing, Stub, admitted, gone, lined, lose


@pytest.fixture
async def stub() -> Stub:
    return Stub()


# The line.


async def test_first_come_first_served(stub: Stub) -> None:
    async with lined(stub) as line:
        await line.come("a", "b", "c", "d", "e")
        assert line.entered == ["a", "b"]
        assert line.numbers() == (2, 3, 0)
        await line.leave("b", "a")
        assert line.entered == ["a", "b", "c", "d"]
        await line.leave("c", "d", "e")
        assert line.entered == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("slots", "allowed", "parallel"), [(2, 3, 2), (3, 2, 2), (None, 2, 2), (2, 2, 2)]
)
async def test_no_more_run_than_the_engine_has_slots_nor_than_the_settings_allow(
    stub: Stub, slots: int | None, allowed: int, parallel: int
) -> None:
    stub.slots = slots
    async with lined(stub, parallel=allowed) as line:
        assert line.queue.engine.parallel == parallel
        await line.come("a", "b", "c", "d")
        assert line.entered == ["a", "b", "c", "d"][:parallel]
        line.queue.engine.switch(Stub("next"), 4)
        assert line.queue.engine.parallel == 4  # that of the next is not known yet


async def test_a_request_takes_a_slot_for_each_of_its_answers(stub: Stub) -> None:
    async with lined(stub, parallel=4) as line:
        await line.come("a", estimate=TokenEstimate(answers=2))
        await line.come("b", "c", "d")
        assert line.entered == ["a", "b", "c"]
        await line.leave("b")
        assert line.entered == ["a", "b", "c", "d"]
        # More than there are slots: by itself, and no longer than that.
        await line.come("wide", estimate=TokenEstimate(answers=100))
        await line.come("e")
        await line.leave("a", "c")
        assert "wide" not in line.entered
        await line.leave("d")
        assert (line.entered[-1], line.numbers()) == ("wide", (1, 1, 0))
        await line.leave("wide")
        assert line.entered[-1] == "e"
        await line.leave("e")


async def test_slots_are_freed_however_a_request_leaves(stub: Stub) -> None:
    async with lined(stub, parallel=2) as line:
        await line.come("a", estimate=TokenEstimate(answers=2))
        await line.come("b")
        await line.cancel("a")
        await line.come("c", "d")
        assert line.entered == ["a", "b", "c"]
        # As many slots as it has taken, whatever their number is by then.
        line.queue.engine.allowed = 8
        await line.come("wide", estimate=TokenEstimate(answers=100))
        await line.leave("b", "c", "d")
        line.queue.engine.allowed = 1
        await line.leave("wide")
        await line.come("e", "f")
        assert line.numbers() == (1, 1, 0)
        line.queue.engine.switch(Stub("next"), 2)
        assert await line.queue.engine.probe()
        await line.leave("e", "f")


async def test_nobody_is_overtaken_by_who_comes_as_a_slot_frees(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b")
        line._leave["a"].set()
        await line.come("c")  # before "a" has been told to go on
        await line.leave("a", "b", "c")
        assert line.entered == ["a", "b", "c"]


async def test_the_line_is_bounded(stub: Stub) -> None:
    async with lined(stub) as line:
        names = [str(n) for n in range(2 + QUEUE)]
        await line.come(*names)
        await line.come("one more")
        (error,) = await gone(line, "one more")
        assert isinstance(error, QueueFull)
        assert line.numbers() == (2, QUEUE, 0)
        await line.leave("0")
        await line.come("another")
        assert line.numbers() == (2, QUEUE, 0)
        lose(line.queue)
        await line.come("held or not")
        (error,) = await gone(line, "held or not")
        assert isinstance(error, QueueFull)


async def test_who_leaves_the_line_is_not_waited_for(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b", "c")
        await line.cancel("b")
        assert line.numbers() == (1, 1, 0)
        await line.leave("a", "c")
        assert line.entered == ["a", "c"]


async def test_the_head_of_the_queue_leaves_and_the_next_are_let_in() -> None:
    async with lined(Sharing(), parallel=8) as line:
        await line.come("a", estimate=TokenEstimate(1000, 1000))
        # No room for it beside "a"; for those behind it there is.
        await line.come("large", estimate=TokenEstimate(1000, 3000))
        await line.come("b", "c", estimate=TokenEstimate(1, 1))
        assert line.entered == ["a"]
        await line.cancel("large")
        await asyncio.sleep(0)
        assert line.entered == ["a", "b", "c"]
        await line.leave("a", "b", "c")


async def test_a_failure_frees_the_place(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        with pytest.raises(RuntimeError):
            async with admitted(line.queue):
                raise RuntimeError
        await line.come("a")
        assert line.entered == ["a"]


async def test_who_is_let_in_and_cancelled_at_once_frees_the_place(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        async with admitted(line.queue):
            await line.come("b", "c")
        # "b" has been let in, and does not know it yet.
        assert line.numbers() == (1, 1, 0)
        assert line.entered == []
        await line.cancel("b")
        await until(lambda: line.entered == ["c"])


async def test_who_is_sent_away_and_cancelled_at_once(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b")
        line.queue.stop()
        line.tasks["b"].cancel()
        await asyncio.wait([line.tasks["b"]])
        assert line.numbers() == (1, 0, 0)


# Holding.


async def test_requests_are_held_until_the_engine_is_ready(stub: Stub) -> None:
    stub.problem = EngineLoadingError("It loads.")
    queue = AdmissionQueue(EngineState(stub, 2), 5)
    assert queue.engine.waiting_for == "stub has not been asked yet."
    assert not await queue.engine.probe()
    line = Line(queue)
    await line.come("a", "b", "c")
    assert (line.entered, line.numbers()) == ([], (0, 0, 3))
    assert (queue.open, queue.engine.waiting_for) == (False, "It loads.")
    stub.problem = None
    assert await queue.engine.probe()
    await line.leave("a", "b", "c")
    assert line.entered == ["a", "b", "c"]
    assert queue.engine.capacity == Capacity(4096)


async def test_holding_is_bounded_for_all_in_line(stub: Stub) -> None:
    async with lined(stub, parallel=1, hold=0.15) as line:
        await line.come("a", "b", "c")
        lose(line.queue, "It fell over.")
        await line.come("d")
        started = time.monotonic()
        errors = await gone(line, "b", "c", "d")
        assert time.monotonic() - started > 0.1
        for error in errors:
            assert isinstance(error, EngineLoadingError)
            assert str(error) == "The engine is not ready: It fell over."
        assert line.numbers() == (1, 0, 0)  # "a" runs on: it may yet be answered
        await line.come("e")
        assert line.numbers() == (1, 0, 1)
        assert await line.queue.engine.probe()
        await line.leave("a", "e")


async def test_a_body_that_came_slowly_has_been_held_already(stub: Stub) -> None:
    """The time counts from a request's arrival, where the engine was not there then."""
    stub.problem = EngineLoadingError("It loads.")
    queue = AdmissionQueue(EngineState(stub, 1), 60)
    line = Line(queue)
    queue._shut_at -= 60  # the engine has been gone for all of it
    await line.come("a", seconds_ago=60)
    (error,) = await gone(line, "a")
    assert isinstance(error, EngineLoadingError)


async def test_waiting_for_others_does_not_count(stub: Stub) -> None:
    async with lined(stub, parallel=1, hold=0.2) as line:
        await line.come("a", "b")
        await asyncio.sleep(0.3)
        lose(line.queue)
        await asyncio.sleep(0.05)
        assert line.numbers() == (1, 0, 1)
        assert await line.queue.engine.probe()
        await line.leave("a", "b")


async def test_waiting_for_others_after_having_been_held_does_not_count(stub: Stub) -> None:
    async with lined(stub, parallel=1, hold=0.2) as line:
        await line.come("a")
        lose(line.queue)
        await line.come("b")
        await asyncio.sleep(0.05)
        assert await line.queue.engine.probe()
        await asyncio.sleep(0.3)
        assert line.numbers() == (1, 1, 0)
        lose(line.queue)
        await asyncio.sleep(0.05)
        assert line.numbers() == (1, 0, 1)
        (error,) = await gone(line, "b")  # what is left of its time
        assert isinstance(error, EngineLoadingError)


async def test_pausing_and_resuming(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        await line.come("a")
        line.queue.engine.hold("On purpose.")
        line.queue.engine.hold("On purpose, again.")
        await line.come("b", "c")
        assert line.numbers() == (1, 0, 2)
        assert (line.queue.engine.on_hold, line.queue.engine.ready) == (True, True)
        assert line.queue.engine.waiting_for == "On purpose, again."
        await line.leave("a")
        assert line.entered == ["a"]
        assert await line.queue.engine.probe()  # the engine is ready: that alone lets nobody pass
        assert line.numbers() == (0, 0, 2)
        line.queue.engine.release()
        await line.leave("b", "c")
        assert line.entered == ["a", "b", "c"]


async def test_a_pause_is_bounded_too(stub: Stub) -> None:
    async with lined(stub, parallel=1, hold=0.1) as line:
        line.queue.engine.hold("On purpose.")
        await line.come("a")
        (error,) = await gone(line, "a")
        assert str(error) == "The engine is not ready: On purpose."


async def test_a_pause_may_last_longer_than_a_hold(stub: Stub) -> None:
    async with lined(stub, parallel=1, hold=0.1) as line:
        line.queue.engine.hold("On purpose.", 30)
        await line.come("a")
        await asyncio.sleep(0.3)
        line.queue.engine.switch(stub, 1)
        await asyncio.sleep(0.1)
        assert line.numbers() == (0, 0, 1)
        line.queue.engine.hold("There is nothing to wait for.", 0.1)
        (error,) = await gone(line, "a")
        assert str(error) == "The engine is not ready: There is nothing to wait for."


async def test_a_long_pause_does_not_lengthen_a_later_hold(stub: Stub) -> None:
    """Neither for who comes later, nor for who waited during the pause."""
    async with lined(stub, parallel=1, hold=0.1) as line:
        await line.come("a")
        line.queue.engine.hold("On purpose.", 30)
        await line.come("b")
        line.queue.engine.release()
        assert line.queue.engine.hold_seconds == 0
        lose(line.queue, "It fell over.")
        await line.come("c")
        errors = await gone(line, "b", "c")
        assert [str(error) for error in errors] == [
            "The engine is not ready: It fell over.",
        ] * 2


async def test_a_pause_counts_until_the_next_engine_is_ready(stub: Stub) -> None:
    async with lined(stub, parallel=1, hold=0.1) as line:
        line.queue.engine.hold("On purpose.", 30)
        line.queue.engine.switch(Stub("next"), 1)
        line.queue.engine.release()
        await line.come("a")
        await asyncio.sleep(0.2)
        assert line.numbers() == (0, 0, 1)
        assert await line.queue.engine.probe()
        await line.leave("a")
        lose(line.queue, "It fell over.")
        await line.come("b")
        (error,) = await gone(line, "b")
        assert str(error) == "The engine is not ready: It fell over."
