"""The line before the engine, by itself: order, bounds, holding, changing over, cancellation."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from llm_provider.errors import (
    ContextFullError,
    EngineLoadingError,
    EngineRefusedError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)
from llm_provider.providers.base import Capacity, LLMProvider
from llm_provider.server.admission import QUEUE, AdmissionQueue, QueueFull, Stopping, Ticket
from llm_provider.server.engine_state import EngineState
from llm_provider.server.token_estimate import NOTHING, TokenEstimate

from ..fake import until


class Stub(LLMProvider):
    """An engine in whatever state a test wants it."""

    name = "stub"

    def __init__(self, model: str = "m") -> None:
        super().__init__(model=model)
        self.problem: Exception | None = None
        self.load_problem: LLMError | None = None
        self.capacity_problem: LLMError | None = None
        self.loads = 0
        self.closed = False

    async def health(self) -> None:
        raise AssertionError

    async def ready(self) -> None:
        if self.problem is not None:
            raise self.problem

    async def load(self) -> None:
        self.loads += 1
        if self.load_problem is not None:
            raise self.load_problem

    async def capacity(self) -> Capacity:
        if self.capacity_problem is not None:
            raise self.capacity_problem
        return Capacity(4096, 2)

    async def close(self) -> None:
        self.closed = True
        await super().close()


class Line:
    """Requests with names, that enter and leave a queue as told."""

    def __init__(self, queue: AdmissionQueue) -> None:
        self.queue = queue
        self.entered: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.tickets: dict[str, Ticket] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(
        self, *names: str, seconds_ago: float = 0.0, estimate: TokenEstimate = NOTHING
    ) -> None:
        """Have requests come, each before the next."""
        for name in names:
            self._leave[name] = asyncio.Event()
            arrived = time.monotonic() - seconds_ago
            self.tasks[name] = asyncio.create_task(self._request(name, arrived, estimate))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _request(self, name: str, arrived: float, estimate: TokenEstimate) -> None:
        async with self.queue.admit(arrived, estimate) as ticket:
            self.tickets[name] = ticket
            self.entered.append(name)
            await self._leave[name].wait()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
            await asyncio.wait_for(self.tasks[name], 5)

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]

    def numbers(self) -> tuple[int, int, int]:
        return self.queue.running, self.queue.queued, self.queue.held


@pytest.fixture
async def stub() -> Stub:
    return Stub()


@asynccontextmanager
async def lined(stub: Stub, parallel: int = 2, hold: float = 5.0) -> AsyncIterator[Line]:
    """A queue that is open; whatever still waits at the end is cancelled."""
    queue = AdmissionQueue(EngineState(stub, parallel), hold)
    assert await queue.engine.probe()
    line = Line(queue)
    try:
        yield line
    finally:
        for task in line.tasks.values():
            task.cancel()
        await asyncio.gather(*line.tasks.values(), return_exceptions=True)
        assert (queue.running, queue.queued, queue.held) == (0, 0, 0)
        assert queue.empty and not queue.leaving


def lose(queue: AdmissionQueue, reason: str = "gone") -> None:
    queue.engine.lost(queue.engine.provider, reason)


async def gone(line: Line, *names: str) -> list[BaseException | None]:
    """The errors with which these requests ended."""
    await asyncio.wait([line.tasks[name] for name in names], timeout=5)
    return [line.tasks[name].exception() for name in names]


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


async def test_a_failure_frees_the_place(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        with pytest.raises(RuntimeError):
            async with line.queue.admit(time.monotonic()):
                raise RuntimeError
        await line.come("a")
        assert line.entered == ["a"]


async def test_who_is_let_in_and_cancelled_at_once_frees_the_place(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        async with line.queue.admit(time.monotonic()):
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
    assert queue.engine.capacity == Capacity(4096, 2)


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


# Asking.


class Asked:
    """A question whose answers are told beforehand; errors are raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.of: list[LLMProvider] = []

    async def __call__(self, provider: LLMProvider) -> object:
        self.of.append(provider)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def watched(queue: AdmissionQueue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.engine.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "error", [EngineUnreachableError("refused"), EngineLoadingError("It loads.")]
)
async def test_what_has_not_begun_is_asked_again(stub: Stub, error: LLMError) -> None:
    question = Asked(error, error, "an answer")
    async with lined(stub) as line, watched(line.queue):
        async with line.queue.admit(time.monotonic()) as ticket:
            assert await asyncio.wait_for(ticket.ask(question), 5) == "an answer"
        assert len(question.of) == 3


@pytest.mark.parametrize(
    "error",
    [
        StreamInterruptedError("broken"),
        EngineRefusedError("no", status=503, words="no", error={}),
        LLMError("any other"),
        RuntimeError(),
    ],
)
async def test_what_may_have_begun_is_never_asked_again(stub: Stub, error: Exception) -> None:
    question = Asked(error, "an answer")
    async with lined(stub) as line:
        with pytest.raises(type(error)):
            async with line.queue.admit(time.monotonic()) as ticket:
                await ticket.ask(question)
        assert len(question.of) == 1
        # What broke off may have died: it is asked before others are let in.
        assert line.queue.open is not isinstance(error, StreamInterruptedError)


async def test_an_engine_that_calls_itself_ready_and_refuses(stub: Stub) -> None:
    class Refusing(Asked):
        async def __call__(self, provider: LLMProvider) -> object:
            self.answers.append(EngineLoadingError("It loads."))
            return await super().__call__(provider)

    question = Refusing()
    async with lined(stub, hold=0.7) as line, watched(line.queue):
        with pytest.raises(EngineLoadingError, match="The engine is not ready: It loads"):
            async with line.queue.admit(time.monotonic()) as ticket:
                await asyncio.wait_for(ticket.ask(question), 5)
    assert 1 < len(question.of) < 10  # again, and not in a frenzy


async def test_those_put_back_keep_their_order_before_those_who_came_later(stub: Stub) -> None:
    async with lined(stub, parallel=3) as line:
        await line.come("a", "b", "c", "d")
        lose(line.queue)
        await line.come("e")
        order: list[str] = []

        async def again(name: str) -> None:
            await line.queue.retry(line.tickets[name])
            order.append(name)

        back = []
        for name in ("b", "a", "c"):  # as they happen to fail
            back.append(asyncio.create_task(again(name)))
            await asyncio.sleep(0)
        assert line.numbers() == (0, 0, 5)
        line.queue.engine.parallel = 1
        assert await line.queue.engine.probe()
        for name in ("a", "b", "c"):
            await until(lambda name=name: order[-1:] == [name])  # type: ignore[misc]
            assert "d" not in line.entered
            await line.leave(name)
        await asyncio.gather(*back)
        await line.leave("d", "e")
        assert line.entered == ["a", "b", "c", "d", "e"]


async def test_who_is_put_back_at_an_open_gate_stays_before_those_who_wait(stub: Stub) -> None:
    """The queue opened again before its request knew that it had failed."""
    async with lined(stub, parallel=1) as line:
        await line.come("a", "b")
        await asyncio.wait_for(line.queue.retry(line.tickets["a"]), 1)
        assert line.entered == ["a"]
        await line.leave("a", "b")


async def test_a_request_put_back_that_is_cancelled(stub: Stub) -> None:
    async with lined(stub, parallel=1) as line:
        lose(line.queue)
        await line.come("a")
        back = asyncio.create_task(line.queue.retry(Ticket(line.queue, -1, time.monotonic(), 5)))
        await asyncio.sleep(0)
        assert line.numbers() == (0, 0, 2)
        back.cancel()
        await asyncio.wait([back])
        assert line.numbers() == (0, 0, 1)


# A context that conversations share.


class Sharing(Stub):
    """Its conversations share 4096 tokens."""

    shares_context = True


THOUSAND = TokenEstimate(size=1500, most=500)


@pytest.mark.parametrize(
    ("estimate", "tokens"),
    [
        (TokenEstimate(300, 50), 150),
        (TokenEstimate(300, 0), 100),
        (
            TokenEstimate(300),
            100 + 512,
        ),  # half of its share is kept for an answer that nobody bounds
        (NOTHING, 512),
    ],
)
def test_what_a_request_needs(estimate: TokenEstimate, tokens: float) -> None:
    assert estimate.tokens(share=1024) == tokens


async def test_those_run_together_for_whom_there_is_room() -> None:
    async with lined(Sharing(), parallel=8) as line:
        await line.come("a", "b", "c", "d", "e", "f", estimate=THOUSAND)
        assert line.entered == ["a", "b", "c", "d"]
        await line.leave("b")
        assert line.entered == ["a", "b", "c", "d", "e"]
        # A small one does not overtake: it might be for ever.
        await line.come("small", estimate=TokenEstimate(1, 1))
        assert "small" not in line.entered
        await line.leave("a", "c")
        assert line.entered == ["a", "b", "c", "d", "e", "f", "small"]
        await line.cancel("d")
        await line.come("g", estimate=THOUSAND)
        assert "g" in line.entered


async def test_who_needs_more_than_there_is_runs_by_itself() -> None:
    async with lined(Sharing()) as line:
        await line.come("a")
        await line.come("huge", estimate=TokenEstimate(1_000_000, 1_000_000))
        await line.come("b")
        assert line.entered == ["a"]
        await line.leave("a")
        assert line.entered == ["a", "huge"]
        await line.leave("huge")
        assert line.entered == ["a", "huge", "b"]


async def test_needs_do_not_count_where_each_has_a_context_of_its_own(stub: Stub) -> None:
    async with lined(stub) as line:
        await line.come("a", "b", estimate=TokenEstimate(1_000_000, 1_000_000))
        assert line.entered == ["a", "b"]


async def test_who_was_given_up_for_lack_of_room_is_asked_again_alone() -> None:
    crowded = ContextFullError("no room", status=500, words="no room", error={})
    async with lined(Sharing(), parallel=3) as line:
        queue = line.queue
        together = 0

        async def question(provider: LLMProvider) -> str:
            nonlocal together
            if queue.running > 1:
                together += 1
                await asyncio.sleep(0)
                raise crowded
            await asyncio.sleep(0.01)
            assert queue.running == 1
            return "an answer"

        async def request() -> str:
            async with queue.admit(time.monotonic(), TokenEstimate(3, 1)) as ticket:
                return await ticket.ask(question)

        answers = await asyncio.gather(*(request() for _ in range(3)))
        assert answers == ["an answer"] * 3
        assert together > 1
        await line.come("a", "b", estimate=THOUSAND)
        assert line.entered == ["a", "b"]  # nobody is alone any more


async def test_who_has_no_room_even_alone_is_told() -> None:
    crowded = ContextFullError("no room", status=500, words="no room", error={})
    question = Asked(crowded, crowded)
    async with lined(Sharing()) as line:
        with pytest.raises(ContextFullError):
            async with line.queue.admit(time.monotonic()) as ticket:
                await asyncio.wait_for(ticket.ask(question), 5)
        await line.come("a")
        assert line.entered == ["a"]


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
        await until(lambda: "could not be told" in caplog.text)
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
            async with queue.admit(time.monotonic()) as ticket:
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


# All of it at once.


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_ever_lost(seed: int) -> None:
    """Requests come, end, fail, are put back and are cancelled, as the engine comes and goes."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable mess is wanted
    queue = AdmissionQueue(EngineState((Stub, Sharing)[seed % 2](), 3), 5)
    await queue.engine.probe()
    ended: dict[str, int] = {}

    async def ask(provider: LLMProvider) -> None:
        assert queue.running <= queue.engine.parallel
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise EngineUnreachableError("gone")
        if chance.random() < 0.1:
            raise StreamInterruptedError("broken")
        if chance.random() < 0.1:
            raise ContextFullError("no room", status=500, words="no room", error={})

    async def request() -> None:
        outcome = "cancelled"
        try:
            estimate = TokenEstimate(chance.randrange(5000), chance.choice([None, 1, 2000]))
            async with queue.admit(time.monotonic(), estimate) as ticket:
                await ticket.ask(ask)
            outcome = "answered"
        except (QueueFull, StreamInterruptedError, ContextFullError) as error:
            outcome = type(error).__name__
        finally:
            ended[outcome] = ended.get(outcome, 0) + 1

    acts: list[Callable[[], object]] = [
        lambda: lose(queue),
        lambda: queue.engine.hold("On purpose."),
        queue.engine.release,
        lambda: chance.choice(tasks).cancel(),
        lambda: chance.choice(tasks).cancel(),
        lambda: queue.engine.switch((Stub, Sharing)[seed % 2](), 3),
    ]
    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(request()))
        chance.choice(acts)()
        if chance.random() < 0.5:
            await queue.engine.probe()
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    queue.engine.release()
    while not all(task.done() for task in tasks):
        await queue.engine.probe()
        await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    assert sum(ended.values()) <= len(tasks)  # some are cancelled before they begin
    assert ended["answered"] > 20
    assert (queue.running, queue.queued, queue.held) == (0, 0, 0)
    assert queue.empty
