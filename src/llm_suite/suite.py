"""A suite: conversations, and what each answer must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_REQUEST: Mapping[str, Any] = {"temperature": 0, "seed": 0, "max_tokens": 256}
"""Fields of a request that neither suite nor conversation sets: the same answer every time, as far
as the engine can."""


@dataclass(frozen=True)
class Haystack:
    """A long text before a message: of `words` words, or as many as fill a share of the context."""

    needle: str
    words: int | None = None
    fill: float | None = None
    position: float = 0.5


@dataclass(frozen=True)
class Turn:
    """A message to the model, of a user or of tools, and what the answer must be.

    `expect` is as the file has it (docs/suites.md); empty where any answer will do.
    """

    user: str | None
    tool_results: Mapping[str, str]
    haystack: Haystack | None
    expect: Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Turns, one after the other, that share their messages."""

    name: str
    system: str | None
    tools: tuple[Mapping[str, Any], ...]
    request: Mapping[str, Any]
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Suite:
    """`name` is that of the file, without its ending."""

    name: str
    title: str
    conversations: tuple[Conversation, ...]


def texts(value: str | Sequence[str]) -> list[str]:
    """A text, or a list of texts, as a list."""
    return [value] if isinstance(value, str) else list(value)


def build_suite(name: str, data: Mapping[str, Any]) -> Suite:
    """The suite that a valid file describes."""
    common = {**DEFAULT_REQUEST, **data.get("request", {})}
    return Suite(
        name=name,
        title=data["title"],
        conversations=tuple(_conversation(each, common) for each in data["conversations"]),
    )


def _conversation(data: Mapping[str, Any], common: Mapping[str, Any]) -> Conversation:
    tools = tuple(
        {
            "type": "function",
            "function": {
                "name": name,
                "description": tool["description"],
                "parameters": tool.get("parameters", {"type": "object", "properties": {}}),
            },
        }
        for name, tool in data.get("tools", {}).items()
    )
    return Conversation(
        name=data["name"],
        system=data.get("system"),
        tools=tools,
        request={**common, **data.get("request", {})},
        turns=tuple(map(_turn, data["turns"])),
    )


def _turn(data: Mapping[str, Any]) -> Turn:
    haystack = data.get("haystack")
    return Turn(
        user=data.get("user"),
        tool_results=data.get("tool_results", {}),
        haystack=Haystack(**haystack) if haystack else None,
        expect=data.get("expect", {}),
    )
