"""Places in the queue, shared among keys: whose request has to go where there are too few."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Seated(Protocol):
    """What has a place. `number` tells which came later; `share` is the weight of its `key`."""

    @property
    def number(self) -> int: ...
    @property
    def key(self) -> Hashable: ...
    @property
    def share(self) -> float: ...


T = TypeVar("T", bound=Seated)


@dataclass
class _Row(Generic[T]):
    """The tickets of one key, and its share, which is its last ticket's."""

    share: float = 1.0
    tickets: dict[T, None] = field(default_factory=dict)

    @property
    def crowd(self) -> float:
        """How many places the key has for its share."""
        return len(self.tickets) / self.share


class Seats(Generic[T]):
    """The tickets that have a place, by their keys."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, _Row[T]] = {}

    def __len__(self) -> int:
        return sum(len(row.tickets) for row in self._rows.values())

    def __iter__(self) -> Iterator[T]:
        return (ticket for row in list(self._rows.values()) for ticket in list(row.tickets))

    def add(self, ticket: T) -> None:
        """Give a ticket a place."""
        row = self._rows.setdefault(ticket.key, _Row())
        row.share = ticket.share
        row.tickets[ticket] = None

    def discard(self, ticket: T) -> None:
        """Take a ticket's place away, where it has one."""
        row = self._rows.get(ticket.key)
        if row is not None and row.tickets.pop(ticket, row) is None and not row.tickets:
            del self._rows[ticket.key]

    def find_displaced(self, key: Hashable, share: float) -> T | None:
        """Return the ticket that has to go for a new one of `key`: the newest of the key that has
        most places for its share. None where no key has more than this one would have then.
        """
        if not self._rows:
            return None
        crowded = max(self._rows.values(), key=lambda row: row.crowd)
        mine = len(self._rows[key].tickets) if key in self._rows else 0
        if crowded.crowd <= (mine + 1) / share:
            return None
        return max(crowded.tickets, key=lambda ticket: ticket.number)
