"""Memory for bodies: within the total, each key in turn, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random

import pytest

from llm_provider.server.body_budget import BodyBudget, OutOfMemoryError


class Line:
    """Bodies that wait for memory, by their names."""

    def __init__(self, budget: BodyBudget) -> None:
        self.budget = budget
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, size: int) -> None:
        """Have a body come; its key is the first letter of its name."""
        self.tasks[name] = asyncio.create_task(self._take(name, size))
        await asyncio.sleep(0)

    async def _take(self, name: str, size: int) -> None:
        await self.budget.take(size, name[0], 20)
        self.served.append(name)

    async def give_back(self, size: int, key: str) -> None:
        self.budget.give_back(size, key)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_keys_get_memory_in_turn() -> None:
    line = Line(BodyBudget(100))
    for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
        await line.come(name, 50)
    assert line.served == ["a1", "a2"]
    assert (line.budget.used, line.budget.waiting) == (100, 4)
    for key in ("a", "a", "b", "a"):
        await line.give_back(50, key)
    assert line.served == ["a1", "a2", "a3", "b1", "a4", "b2"]


async def test_one_key_leaves_room_for_the_others() -> None:
    line = Line(BodyBudget(100, spare=30))
    for name in ("a1", "a2", "a3"):
        await line.come(name, 30)
    assert line.served == ["a1", "a2"]
    await line.come("b1", 30)
    assert line.served == ["a1", "a2", "b1"]
    await line.come("c1", 30)  # which waits, as all is taken
    await line.give_back(30, "a")
    assert line.served == ["a1", "a2", "b1", "a3"]
    await line.give_back(30, "b")
    assert line.served == ["a1", "a2", "b1", "a3", "c1"]


async def test_one_key_gets_the_largest_body_even_where_there_is_room_for_one_only() -> None:
    budget = BodyBudget(100, spare=80)
    await asyncio.wait_for(budget.take(80, "a", 20), 5)
    assert budget.used == 80


async def test_smaller_bodies_do_not_overtake() -> None:
    line = Line(BodyBudget(100))
    for name, size in (("a1", 60), ("b1", 60), ("c1", 10)):
        await line.come(name, size)
    assert line.served == ["a1"]
    await line.give_back(60, "a")
    assert line.served == ["a1", "b1", "c1"]


async def test_a_body_that_waits_no_longer_lets_the_next_pass() -> None:
    line = Line(BodyBudget(100))
    for name, size in (("a1", 60), ("b1", 60), ("c1", 10)):
        await line.come(name, size)
    line.tasks["b1"].cancel()
    await asyncio.gather(line.tasks["b1"], return_exceptions=True)
    await asyncio.sleep(0)
    assert line.served == ["a1", "c1"]
    assert (line.budget.used, line.budget.waiting) == (70, 0)


async def test_the_time_to_wait_is_limited() -> None:
    budget = BodyBudget(100)
    await budget.take(100, "a", 1)
    with pytest.raises(OutOfMemoryError):
        await budget.take(1, "b", 0.01)
    assert (budget.used, budget.waiting) == (100, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_byte_is_ever_lost(seed: int) -> None:
    """Bodies of three keys come, wait, are cancelled at any moment, and end."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable mess is wanted
    budget = BodyBudget(100, spare=20)

    async def body() -> None:
        size, key = chance.randrange(21), chance.choice("aaab")
        await budget.take(size, key, 20)
        try:
            assert budget.used <= 100
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            budget.give_back(size, key)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(200):
        tasks.append(asyncio.create_task(body()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    done, _ = await asyncio.wait(tasks, timeout=60)
    assert len(done) == len(tasks), "no body waits for ever"
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    assert (budget.used, budget.waiting) == (0, 0)
