"""Whether and how much a model thinks before its answer, in the fields that engines read."""

from __future__ import annotations

from enum import Enum
from typing import Any

EFFORTS = ("low", "medium", "high", "xhigh", "max")
"""The levels that clients name; engines know the first three."""

_LEVELS = {"xhigh": "high", "max": "high"}


class ThinkingStyle(Enum):
    """Which fields of a chat body an engine reads; OpenAI's API has a level, and no off."""

    TEMPLATE = "chat_template_kwargs"
    """llama.cpp and vLLM: variables of the model's chat template."""
    EFFORT = "reasoning_effort"
    """Ollama: OpenAI's field, with "none" for off."""


def thinking_fields(enabled: bool, level: str | None, style: ThinkingStyle) -> dict[str, Any]:
    """Return the fields for a body. `level` is one of EFFORTS."""
    level = _LEVELS.get(level, level) if level else None
    if style is ThinkingStyle.EFFORT:
        return {"reasoning_effort": (level or "medium") if enabled else "none"}
    if not enabled:
        return {"chat_template_kwargs": {"enable_thinking": False}}
    if not level:
        return {"chat_template_kwargs": {"enable_thinking": True}}
    return {
        "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": level},
        "reasoning_effort": level,
    }
