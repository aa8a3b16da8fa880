"""The admission queue by itself: what is asked again, and a context that conversations share."""

from __future__ import annotations

import asyncio

import pytest

from llm_provider.errors import (
    ContextFullError,
    EngineLoadingError,
    EngineRefusedError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)
from llm_provider.providers.base import LLMProvider
from llm_provider.server.token_estimate import NOTHING, TokenEstimate

from ..fake import until
from .queue_stub import Sharing, Stub, admitted, lined, lose, watched


@pytest.fixture
async def stub() -> Stub:
    return Stub()


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


@pytest.mark.parametrize(
    "error", [EngineUnreachableError("refused"), EngineLoadingError("It loads.")]
)
async def test_what_has_not_begun_is_asked_again(stub: Stub, error: LLMError) -> None:
    question = Asked(error, error, "an answer")
    async with lined(stub) as line, watched(line.queue):
        async with admitted(line.queue) as ticket:
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
            async with admitted(line.queue) as ticket:
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
            async with admitted(line.queue) as ticket:
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
        line.queue.engine.allowed = 1
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

        async def refused(provider: LLMProvider) -> None:
            raise EngineUnreachableError("gone")

        async def request() -> None:
            async with admitted(line.queue) as ticket:
                await ticket.ask(refused)

        back = asyncio.create_task(request())
        await asyncio.sleep(0)
        await line.come("a")
        assert line.numbers() == (0, 0, 2)
        back.cancel()
        await asyncio.wait([back])
        assert line.numbers() == (0, 0, 1)


THOUSAND = TokenEstimate(prompt=500, most=500)


@pytest.mark.parametrize(
    ("estimate", "tokens"),
    [
        (TokenEstimate(100, 50), 150),
        (TokenEstimate(100, 0), 100),
        (
            TokenEstimate(100),
            100 + 512,
        ),  # half of its share is kept for an answer that nobody bounds
        (NOTHING, 512),
        (TokenEstimate(100, 50, answers=3), 250),
        (TokenEstimate(100, answers=2), 100 + 1024),
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
            async with admitted(queue, TokenEstimate(1, 1)) as ticket:
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
            async with admitted(line.queue) as ticket:
                await asyncio.wait_for(ticket.ask(question), 5)
        await line.come("a")
        assert line.entered == ["a"]
