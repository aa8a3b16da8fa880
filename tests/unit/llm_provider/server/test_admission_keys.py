"""Keys share the queue: turns, places, and who has to go."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from llm_provider.server.admission import QUEUE
from llm_provider.server.seats import Seats
from llm_provider.server.ticket import QueueFull, Stopping

from .queue_stub import Line, Stub, admitted, gone, lined, lose


async def come(line: Line, key: str, count: int, share: float = 1.0) -> None:
    """Have requests of a key come: a0, a1 and so on, after those that came before."""
    before = sum(name.startswith(key) for name in line.tasks)
    names = [f"{key}{number}" for number in range(before, before + count)]
    await line.come(*names, key=key, share=share)


async def serve(line: Line, count: int) -> str:
    """End so many requests, each as soon as it runs; return their keys."""
    start = len(line.entered) - line.queue.running
    for number in range(start, start + count):
        await line.leave(line.entered[number])
    return "".join(name[0] for name in line.entered[start : start + count])


async def test_keys_have_their_turns() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", 6)
        await come(line, "b", 2)
        await come(line, "c", 1)
        assert await serve(line, 9) == "aabcabaaa"
        assert [name for name in line.entered if name[0] == "a"] == [f"a{n}" for n in range(6)]


async def test_a_share_is_a_share_of_the_turns() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "x", 1)
        await come(line, "a", 20, share=3.0)
        await come(line, "b", 20, share=1.0)
        assert Counter(await serve(line, 21)) == {"x": 1, "a": 15, "b": 5}


async def test_a_request_that_is_put_back_keeps_its_turn() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", 3)
        await come(line, "b", 2)
        ticket = line.tickets["a0"]
        lose(line.queue)
        again = asyncio.create_task(line.queue.retry(ticket))
        await asyncio.sleep(0)
        assert line.numbers() == (0, 0, 5)
        await line.queue.engine.probe()
        await asyncio.sleep(0)
        assert again.done()
        assert ticket.running
        assert await serve(line, 5) == "ababa"


async def test_one_key_can_have_all_places_while_it_is_alone() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", 1 + QUEUE)
        assert line.numbers() == (1, QUEUE, 0)
        with pytest.raises(QueueFull):
            async with admitted(line.queue, key="a"):
                pass


async def test_a_newcomer_displaces_the_newest_of_the_key_that_has_most() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", 1 + QUEUE)
        await come(line, "b", 1)
        (error,) = await gone(line, f"a{QUEUE}")
        assert isinstance(error, QueueFull)
        assert line.numbers() == (1, QUEUE, 0)
        assert await serve(line, 3) == "aab"


async def test_places_are_shared_evenly_in_the_end() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", 1 + QUEUE)
        await come(line, "b", QUEUE)
        waiting = Counter(ticket.key for ticket in line.queue._seats)
        assert waiting == {"a": QUEUE // 2, "b": QUEUE // 2}
        refused = [name for name, task in line.tasks.items() if task.done()]
        assert Counter(name[0] for name in refused) == {"a": QUEUE // 2, "b": QUEUE // 2}
        assert "b0" not in refused
        await come(line, "c", 1)
        assert sum(ticket.key == "c" for ticket in line.queue._seats) == 1


async def test_places_go_by_shares() -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", 1 + QUEUE, share=3.0)
        await come(line, "b", QUEUE)
        waiting = Counter(ticket.key for ticket in line.queue._seats)
        assert waiting == {"a": QUEUE * 3 // 4, "b": QUEUE // 4}


async def test_a_request_whose_body_arrives_has_a_place_and_delays_nobody() -> None:
    async with lined(Stub(), parallel=1) as line:
        async with line.queue.place(0.0, "slow") as ticket, ticket.arriving():
            assert (line.queue.arriving, line.queue.empty) == (1, False)
            await come(line, "a", QUEUE)
            assert line.entered == ["a0"]
            assert line.numbers() == (1, QUEUE - 1, 0)
            with pytest.raises(QueueFull):
                async with admitted(line.queue, key="a"):
                    pass
        await come(line, "a", 1)
        assert line.numbers() == (1, QUEUE, 0)


@pytest.mark.parametrize("moment", ["arriving", "between"])
async def test_a_request_is_displaced_while_its_body_arrives(moment: str) -> None:
    async with lined(Stub(), parallel=1) as line:
        await come(line, "a", QUEUE)
        with pytest.raises(QueueFull):
            async with line.queue.place(0.0, "a") as ticket:
                if moment == "arriving":
                    async with ticket.arriving():
                        await come(line, "b", 1)
                        await asyncio.Event().wait()
                await come(line, "b", 1)
                await ticket.enter()
        assert line.numbers() == (1, QUEUE, 0)
        assert line.queue.arriving == 0


async def test_a_stop_sends_away_those_whose_bodies_arrive() -> None:
    async with lined(Stub(), parallel=1) as line:

        async def request() -> None:
            async with line.queue.place(0.0) as ticket, ticket.arriving():
                await asyncio.Event().wait()

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        line.queue.stop()
        with pytest.raises(Stopping):
            await asyncio.wait_for(task, 5)
        with pytest.raises(Stopping):
            await request()


def test_seats_forget_keys_without_tickets() -> None:
    class Ticket:
        number, key, share = 1, "a", 1.0

    seats, ticket = Seats[Ticket](), Ticket()
    assert seats.find_displaced("b", 1.0) is None
    seats.add(ticket)
    seats.discard(Ticket())
    assert (len(seats), list(seats)) == (1, [ticket])
    seats.discard(ticket)
    seats.discard(ticket)
    assert (len(seats), seats._rows) == (0, {})
