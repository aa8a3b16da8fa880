"""Whole answers of Ollama's /api/chat and /api/generate, and its errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from llm_provider.server.translations.openai_format import (
    Delta,
    ToolCallDelta,
    Usage,
    UsageReader,
    read_delta,
    whole_calls,
)

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


class Shape(Enum):
    """Which route an answer is for: they differ in where the text is."""

    CHAT = "/api/chat"
    GENERATE = "/api/generate"


class Stopwatch:
    """Time of one request: when each line was made, and how long the parts of an answer took.

    `begun` is in nanoseconds since 1970, when the request came; the rest is measured on a clock
    that no time server sets.
    """

    def __init__(
        self, begun: int | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._begun = time.time_ns() if begun is None else begun
        self._clock = clock
        self._zero = clock()
        self._first: int | None = None

    @property
    def elapsed(self) -> int:
        """Nanoseconds since the request came."""
        return self._clock() - self._zero

    def mark_first(self) -> None:
        """Note that the first piece of the answer is there: until now the prompt was computed."""
        if self._first is None:
            self._first = self.elapsed

    def timestamp(self) -> str:
        """Return the time now, as Ollama writes it."""
        now = _UNIX + timedelta(microseconds=(self._begun + self.elapsed) // 1000)
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def metrics(self, usage: Usage) -> dict[str, int]:
        """Return the counts and durations of an answer that is complete.

        Durations of the parts are the engine's own, else measured: until the first piece, and from
        there; of an answer in one piece all is `eval_duration`, by which clients divide. The rest,
        such as the time in a queue, is `load_duration`. A duration of 0 is left out, as by Ollama.
        """
        total = max(self.elapsed, 1)
        first = self._first or 0
        prompt = min(first if usage.prompt_ns is None else usage.prompt_ns, total)
        answer = total - first if usage.completion_ns is None else usage.completion_ns
        answer = min(answer, total - prompt)
        durations = {
            "total_duration": total,
            "load_duration": total - prompt - answer,
            "prompt_eval_duration": prompt,
            "eval_duration": answer,
        }
        return {
            "prompt_eval_count": usage.prompt,
            "eval_count": usage.completion,
            **{name: duration for name, duration in durations.items() if duration},
        }


def completion_to_answer(
    completion: Mapping[str, Any], *, shape: Shape, model: str, stopwatch: Stopwatch
) -> dict[str, Any]:
    """Translate a completion; `model` is the name that the client asked for.

    Raises TranslationError where the model called a tool with arguments that are no JSON object.
    """
    answer = read_delta(completion)
    counts = UsageReader()
    counts.feed(completion)
    return {
        **line(
            shape,
            model,
            stopwatch.timestamp(),
            answer,
            tool_calls(answer.tool_calls, answer.finish),
        ),
        "done": True,
        "done_reason": done_reason(answer.finish),
        **stopwatch.metrics(counts.usage),
    }


def load_answer(*, shape: Shape, model: str, stopwatch: Stopwatch) -> dict[str, Any]:
    """Return the answer to a request that only loads the model, which is loaded."""
    return {
        **line(shape, model, stopwatch.timestamp(), Delta(), []),
        "done": True,
        "done_reason": "load",
    }


def line(
    shape: Shape, model: str, created: str, delta: Delta, calls: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a line of an answer, not done yet. Keys without a value are left out, as by Ollama."""
    data: dict[str, Any] = {"model": model, "created_at": created}
    if shape is Shape.CHAT:
        message: dict[str, Any] = {"role": "assistant", "content": delta.text}
        if delta.reasoning:
            message["thinking"] = delta.reasoning
        if calls:
            message["tool_calls"] = calls
        data["message"] = message
    else:
        data["response"] = delta.text
        if delta.reasoning:
            data["thinking"] = delta.reasoning
    data["done"] = False
    if delta.logprobs:
        data["logprobs"] = list(delta.logprobs)
    return data


def tool_calls(calls: tuple[ToolCallDelta, ...], finish: str | None) -> list[dict[str, Any]]:
    """Return tool calls, whose arguments Ollama's API has as objects. See `whole_calls`."""
    translated = []
    for call, arguments in whole_calls(calls, finish):
        function = {"index": call.index, "name": call.name, "arguments": arguments}
        translated.append(
            {"id": call.id, "function": function} if call.id else {"function": function}
        )
    return translated


def done_reason(finish: str | None) -> str:
    """Return done_reason; a tool call is a stop like any other."""
    return "length" if finish == "length" else "stop"


def error_body(message: str) -> dict[str, str]:
    """Return an error as Ollama's API has them, whatever the status."""
    return {"error": message}
