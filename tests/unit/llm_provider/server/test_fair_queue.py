"""The fair queue, compared with a slow model of it."""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_provider.server.fair_queue import FairQueue

KEYS = st.sampled_from("abcd")


@dataclass(eq=False)
class Waiting:
    number: int
    key: str = ""


def fill(queue: FairQueue[Waiting], keys: str, **weights: float) -> list[Waiting]:
    numbers = itertools.count()
    tickets = [Waiting(next(numbers), key) for key in keys]
    for ticket in tickets:
        queue.push(ticket, ticket.key, weights.get(ticket.key, 1.0))
    return tickets


def served(queue: FairQueue[Waiting]) -> str:
    return "".join(queue.pop().key for _ in range(len(queue)))


def test_one_key_is_served_in_order() -> None:
    queue = FairQueue[Waiting]()
    tickets = fill(queue, "aaa")
    assert [queue.pop() for _ in range(3)] == tickets
    assert len(queue) == 0
    with pytest.raises(IndexError, match="No ticket waits"):
        queue.pop()


def test_keys_are_served_in_turn() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "aaaaabbc")
    assert served(queue) == "abcabaaa"


def test_a_weight_is_a_share() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "a" * 40 + "b" * 40, a=3.0)
    first = Counter(queue.pop().key for _ in range(40))
    assert first == {"a": 30, "b": 10}


def test_a_key_that_comes_late_does_not_catch_up() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "a" * 20)
    for _ in range(10):
        queue.pop()
    for number in range(10):
        queue.push(Waiting(100 + number, "b"), "b")
    assert served(queue) in ("ab" * 10, "ba" * 10)


def test_a_key_that_was_idle_for_long_does_not_catch_up() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "ab" + "a" * 20)
    for _ in range(12):
        queue.pop()
    for number in range(10):
        queue.push(Waiting(100 + number, "b"), "b")
    assert served(queue) in ("ab" * 10, "ba" * 10)


def test_a_key_that_leaves_and_comes_back_gains_nothing() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "aabbcc")
    order = ""
    for number in range(12):
        ticket = queue.pop()
        order += ticket.key
        # A client that sends one request at a time, beside two that have many.
        queue.push(Waiting(100 + number, ticket.key), ticket.key)
    assert order == "abc" * 4


def test_peek_is_what_pop_returns() -> None:
    queue = FairQueue[Waiting]()
    assert queue.peek() is None
    first, second = fill(queue, "ab")
    assert queue.peek() is first
    assert queue.peek() is first
    queue.remove(first)
    assert queue.peek() is second
    assert queue.pop() is second
    assert queue.peek() is None


def test_a_ticket_that_is_put_back_has_its_place_and_its_key_the_turn() -> None:
    queue = FairQueue[Waiting]()
    tickets = fill(queue, "aabb")
    first, second = queue.pop(), queue.pop()
    assert [first.key, second.key] == ["a", "b"]
    queue.put_back(second, "b")
    queue.put_back(first, "a")
    assert [queue.pop() for _ in range(4)] == [tickets[0], tickets[2], tickets[1], tickets[3]]


def test_a_key_does_not_pay_for_a_ticket_that_is_put_back() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "aabb")
    for _ in range(3):
        queue.put_back(queue.pop(), "a")
    assert served(queue) == "abab"


def test_a_ticket_is_put_back_where_nothing_else_waits() -> None:
    queue = FairQueue[Waiting]()
    (ticket,) = fill(queue, "a")
    assert queue.pop() is ticket
    queue.put_back(ticket, "a")
    queue.push(Waiting(5, "b"), "b")
    assert served(queue) == "ab"


def test_remove_and_double_use_are_checked() -> None:
    queue = FairQueue[Waiting]()
    (ticket,) = fill(queue, "a")
    with pytest.raises(ValueError, match="waits already"):
        queue.push(ticket, "b")
    queue.remove(ticket)
    assert ticket not in queue
    with pytest.raises(KeyError):
        queue.remove(ticket)
    with pytest.raises(ValueError, match="The weight is 0"):
        queue.push(ticket, "a", 0)
    queue.push(ticket, "b")  # again, and of another key
    assert queue.pop() is ticket
    assert len(queue) == 0


def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    queue = FairQueue[Waiting]()
    fill(queue, "a")
    for number in range(5000):
        ticket = Waiting(number, "b")
        queue.push(ticket, "b")
        queue.remove(ticket)
        visitor = f"key {number}"
        ticket = Waiting(number, visitor)
        queue.push(ticket, visitor)
        queue.remove(ticket)
        del ticket
    gc.collect()
    assert sum(isinstance(each, Waiting) for each in gc.get_objects()) < 1000
    assert len(queue._heap) < 200
    assert len(queue._lines) < 200
    assert served(queue) == "a"


def test_tickets_that_left_are_dropped_behind_one_that_waits() -> None:
    queue = FairQueue[Waiting]()
    (first,) = fill(queue, "a")
    for number in range(5000):
        ticket = Waiting(number, "a")
        queue.push(ticket, "a")
        queue.remove(ticket)
        del ticket
    assert sum(isinstance(each, Waiting) for each in gc.get_objects()) < 200
    assert queue.pop() is first


def test_keys_that_are_served_once_are_forgotten() -> None:
    queue = FairQueue[Waiting]()
    numbers = itertools.count()
    queue.push(Waiting(next(numbers), "busy"), "busy")
    for each in range(5000):
        queue.push(Waiting(next(numbers), f"k{each}"), f"k{each}")
        queue.push(Waiting(next(numbers), "busy"), "busy")
        queue.pop()
        queue.pop()
    assert len(queue._lines) < 200
    assert len(queue._heap) < 200


def test_a_large_queue_is_fast() -> None:
    """30,000 tickets take seconds at most; a queue of O(n) would take minutes."""
    queue = FairQueue[Waiting]()
    tickets = [Waiting(number, str(number * 7919 % 1009)) for number in range(30_000)]
    started = time.process_time()
    for ticket in tickets:
        queue.push(ticket, ticket.key)
    for ticket in tickets[::2]:
        queue.remove(ticket)
    while len(queue):
        queue.pop()
    assert time.process_time() - started < 10


@dataclass
class Gap:
    """Who was served since a key was, or came."""

    others: Counter[str] = field(default_factory=Counter)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["push", "push", "pop", "remove"]), KEYS), max_size=120))
def test_no_key_starves(steps: list[tuple[str, str]]) -> None:
    """With equal weights, while a key waits, no other key is served twice before it."""
    queue = FairQueue[Waiting]()
    waiting: dict[str, list[Waiting]] = {}
    gaps: dict[str, Gap] = {}
    for number, (step, key) in enumerate(steps):
        if step == "push":
            ticket = Waiting(number, key)
            queue.push(ticket, key)
            waiting.setdefault(key, []).append(ticket)
            gaps.setdefault(key, Gap())
            continue
        if step == "pop" and len(queue):
            ticket = queue.pop()
            key = ticket.key
            assert waiting[key][0] is ticket, "the order within a key"
            waiting[key].pop(0)
            gaps[key] = Gap()
            for other, gap in gaps.items():
                if other != key:
                    gap.others[key] += 1
                    assert gap.others[key] <= 1, f"{other} waits while {key} is served twice"
        elif step == "remove" and waiting.get(key):
            queue.remove(waiting[key].pop())
        if key in waiting and not waiting[key]:
            del waiting[key], gaps[key]
    assert len(queue) == sum(map(len, waiting.values()))


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(KEYS, st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.5]), min_size=2),
    st.integers(20, 200),
)
def test_shares_are_kept_within_one_ticket(weights: dict[str, float], rounds: int) -> None:
    queue = FairQueue[Waiting]()
    for key in weights:
        for number in range(rounds):
            queue.push(Waiting(number, key), key, weights[key])
    counts = Counter(queue.pop().key for _ in range(rounds))
    total = sum(weights.values())
    for key, weight in weights.items():
        assert abs(counts[key] - rounds * weight / total) <= 1 + weight / min(weights.values())


class Model(RuleBasedStateMachine):
    """All operations, with weights and put_back, against sets and sorting."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue[Waiting]()
        self.waiting: list[Waiting] = []
        self.popped: list[Waiting] = []
        self.numbers = itertools.count()

    @rule(key=KEYS, weight=st.sampled_from([0.1, 1.0, 2.0]))
    def push(self, key: str, weight: float) -> None:
        ticket = Waiting(next(self.numbers), key)
        self.queue.push(ticket, key, weight)
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule()
    def pop(self) -> None:
        expected = self.queue.peek()
        ticket = self.queue.pop()
        assert ticket is expected
        assert ticket.number == min(
            each.number for each in self.waiting if each.key == ticket.key
        ), "the lowest number of its key"
        self.waiting.remove(ticket)
        self.popped.append(ticket)

    @precondition(lambda self: self.popped)
    @rule(index=st.integers(0, 1000))
    def put_back(self, index: int) -> None:
        ticket = self.popped.pop(index % len(self.popped))
        self.queue.put_back(ticket, ticket.key)
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule(index=st.integers(0, 1000))
    def remove(self, index: int) -> None:
        self.queue.remove(self.waiting.pop(index % len(self.waiting)))

    @invariant()
    def agree(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert set(self.queue) == set(self.waiting)
        assert all(ticket in self.queue for ticket in self.waiting)
        assert (self.queue.peek() is None) == (not self.waiting)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
