"""Fields of OpenAI's bodies that an engine drops, or reads in one form only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NOTHING: tuple[Any, ...] = (None, {}, [], "")
# The one value of a field that engines drop that they do anyway.
_DONE_ANYWAY: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "ignore_eos": False,
    "repeat_penalty": 1,
    "mirostat": 0,
}


def first_dropped(body: Mapping[str, Any], dropped: tuple[str, ...]) -> str | None:
    """Return the first of the fields that an engine drops that asks for something, if any."""
    for param in dropped:
        if body.get(param) not in _NOTHING and body[param] != _DONE_ANYWAY.get(param):
            return param
    return None


def join_text_parts(message: Any) -> Any:
    """Return a message whose text comes in parts with its text in one.

    Ollama would make a message of each part, vLLM a line.
    """
    parts = message.get("content") if isinstance(message, dict) else None
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in parts
    ):
        return message
    return {**message, "content": "".join(part["text"] for part in parts)}


def positive(value: object) -> int | None:
    """Return a whole number above 0 of an engine's answer; None for anything else."""
    return value if isinstance(value, int) and value > 0 else None
