"""Streamed answers: chunks of OpenAI's completions as Ollama's lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.ollama_response import (
    Shape,
    Stopwatch,
    done_reason,
    error_body,
    line,
    tool_calls,
)
from llm_provider.server.translations.openai_format import (
    Delta,
    ToolCallCollector,
    UsageReader,
    read_delta,
)


class OllamaStream:
    """Translates one streamed answer.

    `feed` takes each parsed chunk and returns the lines that it makes; `finish` comes after the
    last chunk ([DONE]), and `fail` instead of it where the answer breaks off. Tool calls are kept
    until then, since Ollama's lines have their arguments as objects: `finish` raises
    TranslationError where they are none.
    """

    def __init__(self, *, shape: Shape, model: str, stopwatch: Stopwatch) -> None:
        self._shape = shape
        self._model = model
        self._stopwatch = stopwatch
        self._calls = ToolCallCollector()
        self._counts = UsageReader()
        self._finish: str | None = None
        self._ended = False

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """Translate one chunk. An error of the engine in it ends the stream."""
        if self._ended:
            return b""
        delta = read_delta(chunk)
        if delta.error is not None:
            return self.fail(str(delta.error.get("message") or "The engine failed."))
        self._counts.feed(chunk)
        self._finish = delta.finish or self._finish
        for piece in delta.tool_calls:
            self._calls.add(piece)
        if delta.text or delta.reasoning or delta.tool_calls:
            self._stopwatch.mark_first()
        if delta.text or delta.reasoning or delta.logprobs:
            return self._line(delta)
        return b""

    def finish(self) -> bytes:
        """Return the last line, with reason, counts and durations; an error if it has no reason."""
        if self._ended:
            return b""
        if self._finish is None:
            return self.fail("The engine's answer broke off before its end.")
        calls = tool_calls(self._calls.calls, self._finish)
        self._ended = True
        out = self._line(Delta(), calls) if calls else b""
        last = line(self._shape, self._model, self._stopwatch.timestamp(), Delta(), [])
        return out + _json(
            {
                **last,
                "done": True,
                "done_reason": done_reason(self._finish),
                **self._stopwatch.metrics(self._counts.usage),
            }
        )

    def fail(self, message: str) -> bytes:
        """Return the line of a failure; nothing comes after it."""
        if self._ended:
            return b""
        self._ended = True
        return _json(error_body(message))

    def _line(self, delta: Delta, calls: list[dict[str, Any]] | None = None) -> bytes:
        created = self._stopwatch.timestamp()
        return _json(line(self._shape, self._model, created, delta, calls or []))


def _json(data: Mapping[str, Any]) -> bytes:
    # ASCII escapes carry any text, and half a character too.
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"
