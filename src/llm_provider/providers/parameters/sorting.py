"""Sorts the fields of a request: what its engine is sent, what is left out, what refuses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm_provider.providers.encoded_body import EncodedBody
from llm_provider.providers.parameters.rules import UNREAD, Effect, Match
from llm_provider.providers.parameters.table import Table
from llm_provider.providers.parameters.tables import TABLES

MOST_DECODED_BYTES = 256 * 1024
"""A larger value of an encoded body is not decoded, and nothing is known of its members."""
_MOST_CHARACTERS = 60
_MOST_ENTRIES = 4
_MOST_LEVELS = 3


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused. `param`: the field, or the member of it, that asks for too much."""

    param: str
    message: str


@dataclass(frozen=True)
class Sorted:
    """The fields of a request, sorted.

    `kept`: names of the fields that are sent, in their order. `dropped`: paths of what the engine
    ignores: fields that are not sent, and members of fields that are. They are the tables' own,
    never a client's text. `refusal`: why nothing is sent; None where the request can be.
    """

    kept: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    refusal: Refusal | None = None


class _Decoded(Mapping[str, Any]):
    """The fields of an encoded body, each decoded once; UNREAD where it is large, or too deep."""

    def __init__(self, body: EncodedBody) -> None:
        self._body = body
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._decode(name)
        return self._values[name]

    def _decode(self, name: str) -> Any:
        if self._body.size_of(name) > MOST_DECODED_BYTES:
            return UNREAD
        try:
            return self._body[name]
        except RecursionError:
            return UNREAD

    def __iter__(self) -> Iterator[str]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)

    def __contains__(self, name: object) -> bool:
        return name in self._body


def sort_fields(engine: str, route: str, fields: Mapping[str, Any], strict: bool) -> Sorted:
    """Return the fields of a request to `route` (an engine's path) of `engine`, sorted.

    Only fields that a rule is about are looked up in `fields`, never messages or prompts. By
    default a field that the engine ignores without harm is dropped, and one that no table knows is
    kept; `strict` refuses both.
    """
    table = TABLES.get(engine, {}).get(route)
    names = tuple(fields)
    if table is None:
        return Sorted(names)
    if isinstance(fields, EncodedBody):
        fields = _Decoded(fields)
    matches = _matches(table, fields)
    for match in matches:
        if match.rule.effect is Effect.REFUSE:
            return Sorted(names, refusal=_changes_the_answer(engine, route, fields, match))
    if strict:
        if matches:
            return Sorted(names, refusal=_ignored(engine, matches[0]))
        for name in names:
            if name not in table.known and fields[name] is not None:
                return Sorted(names, refusal=_unknown(engine, route, name))
    dropped = tuple(match.rule.path for match in matches)
    return Sorted(tuple(name for name in names if name not in dropped), dropped)


def _matches(table: Table, fields: Mapping[str, Any]) -> list[Match]:
    """Return the values that rules are about, one for each path."""
    found: dict[str, Match] = {}
    for rule in table.rules:
        if rule.path not in found and (match := rule.find(fields)) is not None:
            found[rule.path] = match
    return list(found.values())


def _changes_the_answer(
    engine: str, route: str, fields: Mapping[str, Any], match: Match
) -> Refusal:
    param, beside = match.rule.path, match.rule.beside
    others = [name for name in TABLES if name != engine and _does(name, route, fields, match)]
    if beside:
        advice = f"Leave it out, or set '{beside}'"
    elif others:
        advice = f"Leave it out, or use {' or '.join(others)}"
    else:
        advice = "Leave it out"
    return Refusal(
        param,
        f"'{param}' does not fit {engine}: {shown(match.value)} would be ignored, "
        f"which changes the answer. {advice}.",
    )


def _does(engine: str, route: str, fields: Mapping[str, Any], match: Match) -> bool:
    """Whether another engine does what a field asks."""
    table = TABLES[engine].get(route)
    field = match.rule.field
    return (
        table is not None
        and field in table.known
        and not any(each.rule.field == field for each in _matches(table, fields))
    )


def _ignored(engine: str, match: Match) -> Refusal:
    param = match.rule.path
    return Refusal(
        param,
        f"'{param}' does not fit {engine}: {shown(match.value)} would be ignored, "
        "which strict mode refuses. Leave it out.",
    )


def _unknown(engine: str, route: str, name: str) -> Refusal:
    name = _shortened(name)
    return Refusal(
        name,
        f"'{name}' is unknown: {engine} would ignore it on {route}, "
        "which strict mode refuses. Correct its name, or leave it out.",
    )


def shown(value: Any) -> str:
    """Return a value as JSON, shortened, for a message."""
    return _shortened(json.dumps(_excerpt(value, _MOST_LEVELS), ensure_ascii=False))


def _shortened(text: str) -> str:
    # Half a pair of surrogates cannot be written to a log.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def _excerpt(value: Any, levels: int) -> Any:
    """Return the beginning of a value: a copy of it all may be large."""
    if value is UNREAD or (levels == 0 and isinstance(value, Mapping | list)):
        return "..."
    if isinstance(value, Mapping):
        pairs = list(value.items())[:_MOST_ENTRIES]
        return {str(name)[:_MOST_CHARACTERS]: _excerpt(each, levels - 1) for name, each in pairs}
    if isinstance(value, list | tuple):
        return [_excerpt(each, levels - 1) for each in value[:_MOST_ENTRIES]]
    return value if isinstance(value, bool | int | float | None) else str(value)[:_MOST_CHARACTERS]
