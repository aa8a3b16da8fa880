"""Whole answers: OpenAI's chat completion as a Message of Anthropic's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.openai_format import (
    Usage,
    UsageReader,
    read_delta,
    whole_calls,
)

_STOP_REASONS = {"length": "max_tokens", "content_filter": "refusal"}


def completion_to_message(
    completion: Mapping[str, Any], *, model: str, message_id: str
) -> dict[str, Any]:
    """Translate a chat completion; `model` is the name that the client asked for.

    Raises TranslationError where the model called a tool with arguments that are no JSON object.
    """
    answer = read_delta(completion)
    counts = UsageReader()
    counts.feed(completion)
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [
        {
            "type": "tool_use",
            "id": tool_use_id(call.id, number, message_id),
            "name": call.name,
            "input": arguments,
        }
        for number, (call, arguments) in enumerate(whole_calls(answer.tool_calls, answer.finish))
    ]
    reason, sequence = stop_reason(answer.finish, answer.stop, bool(answer.tool_calls))
    return {
        **empty_message(model, message_id),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_fields(counts.usage),
    }


def empty_message(model: str, message_id: str) -> dict[str, Any]:
    """Return a message without content, as a stream begins with."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_fields(Usage()),
    }


def usage_fields(usage: Usage) -> dict[str, int]:
    """Return Anthropic's counts; `input_tokens` leaves out what came from a cache."""
    cached = min(usage.cached, usage.prompt)
    return {
        "input_tokens": usage.prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion,
    }


def stop_reason(finish: str | None, stop: str | None, calls: bool) -> tuple[str, str | None]:
    """Return stop_reason and stop_sequence for a finish_reason and the stop string, if known."""
    if reason := _STOP_REASONS.get(finish or ""):
        return reason, None
    if calls:  # vLLM says "stop" of a call that the client has demanded
        return "tool_use", None
    return ("stop_sequence", stop) if stop else ("end_turn", None)


def tool_use_id(given: str, number: int, message_id: str) -> str:
    """Return a call's id; a call to which the engine gave none gets one that no other has."""
    return given or f"toolu_{message_id.removeprefix('msg_')}_{number}"
