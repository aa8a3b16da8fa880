"""A queue that serves its keys in turn, and each key's tickets in their order.

Stride scheduling: each key has a position, which moves forward by 1/weight with each ticket that is
served, and the key with the lowest position is next. With equal weights this is round-robin. A key
without tickets keeps its position, so that leaving and coming back gains nothing, and a key that
comes back late starts where the others are, so that waiting gains nothing either.

Nothing here waits, and nothing knows of clocks or requests.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

_ROUND = 1 << 32
"""The step of a key with weight 1: whole numbers add up exactly for any time."""
_SLACK = 32


class Queued(Protocol):
    """What waits. `number` is its place among the tickets of its key, the lowest first."""

    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=Queued)


class _Line(Generic[T]):
    """The tickets of one key. `entry` is its only valid entry in the heap of keys.

    `turn` is its place among keys with the same position, `former_turn` the one before the last
    ticket was served, for a ticket that is put back.
    """

    def __init__(self, key: Hashable, position: int) -> None:
        self.key = key
        self.position = position
        self.step = _ROUND
        self.turn = 0
        self.former_turn: int | None = None
        self.entry: int | None = None
        self.tickets: list[tuple[int, int, T]] = []
        self.waiting = 0


class FairQueue(Generic[T]):
    """`push`, `pop` and `remove` take O(log n) on average, for n tickets and keys."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[T]] = {}
        self._heap: list[tuple[int, int, int, _Line[T]]] = []  # position, turn, entry
        self._forget_at = _SLACK
        # By id(ticket): its line, the serial of its only valid entry there, and the ticket.
        self._where: dict[int, tuple[_Line[T], int, T]] = {}
        self._serial = itertools.count()
        self._position = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, ticket: T) -> bool:
        return id(ticket) in self._where

    def __iter__(self) -> Iterator[T]:
        """All tickets that wait, in no particular order."""
        return (ticket for _, _, ticket in list(self._where.values()))

    def push(self, ticket: T, key: Hashable, weight: float = 1.0) -> None:
        """Add a ticket of `key`, whose share is `weight` from now on."""
        self._add(ticket, key, weight, served=False)

    def put_back(self, ticket: T, key: Hashable, weight: float = 1.0) -> None:
        """Add a ticket that `pop` returned, and that was not served after all.

        It has its place by its number again, and its key its turn.
        """
        self._add(ticket, key, weight, served=True)

    def peek(self) -> T | None:
        """Return the ticket that `pop` would return; None where none waits."""
        line = self._next()
        return None if line is None else line.tickets[0][2]

    def pop(self) -> T:
        """Remove and return the next ticket. Raises IndexError where none waits."""
        line = self._next()
        if line is None:
            raise IndexError("No ticket waits.")
        _, _, ticket = heapq.heappop(line.tickets)
        del self._where[id(ticket)]
        line.waiting -= 1
        self._position = max(self._position, line.position)
        line.former_turn = line.turn
        self._move(line, line.position + line.step, next(self._serial))
        self._rest()
        return ticket

    def remove(self, ticket: T) -> None:
        """Remove a ticket, wherever it waits. Raises KeyError where it does not."""
        line, _, _ = self._where.pop(id(ticket))
        line.waiting -= 1
        self._rest()
        # It stays in its line's heap until it gets to the top, or until most of the heap is gone.
        if len(line.tickets) > 2 * line.waiting + _SLACK:
            line.tickets = [each for each in line.tickets if self._is_live(line, each)]
            heapq.heapify(line.tickets)

    def _add(self, ticket: T, key: Hashable, weight: float, *, served: bool) -> None:
        if not weight > 0:
            raise ValueError(f"The weight is {weight}; it must be above 0.")
        if ticket in self:
            raise ValueError("The ticket waits already.")
        line = self._line(key)
        serial = next(self._serial)
        position, turn = line.position, line.turn
        if served:
            position -= line.step
            turn = serial if line.former_turn is None else line.former_turn
        elif not line.waiting and position < self._position:
            position, turn = self._position, serial
        line.step = max(1, round(_ROUND / weight))
        heapq.heappush(line.tickets, (ticket.number, serial, ticket))
        self._where[id(ticket)] = line, serial, ticket
        line.waiting += 1
        if line.entry is None or (position, turn) != (line.position, line.turn):
            self._move(line, position, turn)

    def _line(self, key: Hashable) -> _Line[T]:
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= self._forget_at:
                self._forget()
                self._forget_at = 2 * len(self._lines) + _SLACK
            line = self._lines[key] = _Line(key, self._position)
            line.turn = next(self._serial)
        return line

    def _next(self) -> _Line[T] | None:
        """Return the key to be served, with a ticket that waits at the top of its tickets."""
        while self._heap:
            _, _, entry, line = self._heap[0]
            if line.entry == entry:
                while line.tickets and not self._is_live(line, line.tickets[0]):
                    heapq.heappop(line.tickets)
                if line.tickets:
                    return line
                line.entry = None
            heapq.heappop(self._heap)
        return None

    def _move(self, line: _Line[T], position: int, turn: int) -> None:
        """Give a key another position, and its entry in the heap."""
        line.position, line.turn, line.entry = position, turn, next(self._serial)
        heapq.heappush(self._heap, (position, turn, line.entry, line))
        if len(self._heap) > 2 * len(self._lines) + _SLACK:
            self._heap = [each for each in self._heap if each[3].entry == each[2]]
            heapq.heapify(self._heap)

    def _forget(self) -> None:
        """Forget keys without tickets whose position says nothing any more."""
        for line in list(self._lines.values()):
            if not line.waiting and line.position <= self._position:
                del self._lines[line.key]
                line.entry = None

    def _rest(self) -> None:
        """Forget all positions once nothing waits: nobody can be behind anybody then."""
        if not self._where:
            self._lines.clear()
            self._heap.clear()

    def _is_live(self, line: _Line[T], entry: tuple[int, int, T]) -> bool:
        _, serial, ticket = entry
        found = self._where.get(id(ticket))
        return found is not None and found[0] is line and found[1] == serial
