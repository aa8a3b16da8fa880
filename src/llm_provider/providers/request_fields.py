"""Fields of OpenAI's bodies that an engine reads in one form only; numbers of its answers."""

from __future__ import annotations

from typing import Any


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
