"""The admission queue by itself: no place is ever lost, whatever happens."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from llm_provider.errors import ContextFullError, EngineUnreachableError, StreamInterruptedError
from llm_provider.providers.base import LLMProvider
from llm_provider.server.admission import QUEUE, AdmissionQueue
from llm_provider.server.engine_state import EngineState
from llm_provider.server.ticket import QueueFull
from llm_provider.server.token_estimate import TokenEstimate

from .queue_stub import Sharing, Stub, lose


@pytest.fixture
async def stub() -> Stub:
    return Stub()


# All of it at once.


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_ever_lost(seed: int) -> None:
    """Requests of several keys come, send their bodies, end, fail, are put back, are displaced and
    are cancelled, as the engine comes and goes.
    """
    chance = random.Random(seed)  # noqa: S311 - a repeatable mess is wanted
    queue = AdmissionQueue(EngineState((Stub, Sharing)[seed % 2](), 3), 5)
    await queue.engine.probe()
    ended: dict[str, int] = {}

    async def ask(provider: LLMProvider) -> None:
        assert queue.running <= queue._slots <= queue.engine.parallel or not queue.running
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
            estimate = TokenEstimate(
                chance.randrange(1700), chance.choice([None, 1, 2000]), chance.choice([1, 1, 2, 9])
            )
            key, share = chance.choice([("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 3.0), ("c", 0.5)])
            async with queue.place(time.monotonic(), key, share) as ticket:
                async with ticket.arriving():
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
                if chance.random() < 0.1:
                    raise ValueError("The body is invalid.")
                await ticket.enter(estimate)
                assert ticket.running
                await ticket.ask(ask)
            outcome = "answered"
        except (QueueFull, StreamInterruptedError, ContextFullError, ValueError) as error:
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
        assert len(queue._seats) <= QUEUE + 3 + 3  # those that were put back have one in any case
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    assert sum(ended.values()) <= len(tasks)  # some are cancelled before they begin
    assert ended["answered"] > 20
    assert ended["ValueError"] > 5
    assert (queue.running, queue._slots, queue.queued, queue.held) == (0, 0, 0, 0)
    assert queue.empty
    assert (queue.arriving, len(queue._waiting), list(queue._seats)) == (0, 0, [])
