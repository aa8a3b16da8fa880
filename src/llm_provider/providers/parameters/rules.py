"""A rule: a field that an engine ignores, and what happens to a request that has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Unread:
    """The one value of this type, UNREAD, stands for a value that is too large to be decoded."""

    def __repr__(self) -> str:
        return "UNREAD"


UNREAD = Unread()

_NOTHING: tuple[Any, ...] = (None, {}, [], "")
_ENTRIES = "[]"


class Effect(Enum):
    """What happens to a request with a field that its engine ignores."""

    DROP = "dropped"
    """The answer is a valid one without the field, which is left out and named to the client."""
    REFUSE = "refused"
    """The answer would be another one than was asked for."""


@dataclass(frozen=True)
class Rule:
    """A field that an engine ignores.

    `path`: a field, a member of it (`text.verbosity`), or a member of each entry of a list
    (`tools[].type`; `include[]` is each entry itself).
    `does`: values that the engine does all the same.
    `only`: the rule is about these values; empty: about all but `does`.
    `beside`: a field with which the engine does this one; empty: it never does.
    `even_empty`: whether an empty object, list or text asks for something as well.
    `note`: what the engine does instead, for the documentation.
    """

    path: str
    effect: Effect
    does: tuple[Any, ...] = ()
    only: tuple[Any, ...] = ()
    beside: str = ""
    even_empty: bool = False
    note: str = ""

    @property
    def field(self) -> str:
        """The top-level field."""
        return self.path.partition(".")[0].removesuffix(_ENTRIES)

    def find(self, fields: Mapping[str, Any]) -> Match | None:
        """Return the first value of a request that the rule is about; None where there is none."""
        if self.field not in fields or (self.beside and fields.get(self.beside)):
            return None
        for value in _values(fields[self.field], self.path.split(".")):
            if self._is_about(value):
                return Match(self, value)
        return None

    def _is_about(self, value: object) -> bool:
        if value is None or (not self.even_empty and value in _NOTHING):
            return False
        return value in self.only if self.only else value not in self.does


@dataclass(frozen=True)
class Match:
    """A value of a request that a rule is about."""

    rule: Rule
    value: Any


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    """Yield what a path leads to; the value of its first step is given."""
    step, *rest = path
    entries = [value]
    if step.endswith(_ENTRIES):
        entries = value if isinstance(value, list) else []
    for entry in entries:
        if not rest:
            yield entry
        elif isinstance(entry, Mapping) and rest[0].removesuffix(_ENTRIES) in entry:
            yield from _values(entry[rest[0].removesuffix(_ENTRIES)], rest)


def drop(path: str, *does: Any, note: str = "") -> Rule:
    """Return a rule for a field whose loss does no harm; `does` as in `Rule`."""
    return Rule(path, Effect.DROP, does, note=note)


def refuse(path: str, *does: Any, note: str = "") -> Rule:
    """Return a rule for a field whose loss changes the answer; `does` as in `Rule`."""
    return Rule(path, Effect.REFUSE, does, note=note)
