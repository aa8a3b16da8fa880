"""Streamed answers: chunks of OpenAI's chat completions as Anthropic's server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.anthropic_errors import error_body
from llm_provider.server.translations.anthropic_message import (
    empty_message,
    stop_reason,
    tool_use_id,
    usage_fields,
)
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.openai_format import (
    ToolCallDelta,
    ToolCallNumbers,
    UsageReader,
    read_delta,
)


def event(kind: str, **data: Any) -> bytes:
    """Return one server-sent event. ASCII escapes carry any text, and half a character too."""
    body = json.dumps({"type": kind, **data}, separators=(",", ":"))
    return f"event: {kind}\ndata: {body}\n\n".encode()


PING = event("ping")
"""Keeps a connection alive; allowed anywhere, also before the first event."""


class MessageStream:
    """Translates one streamed answer.

    `feed` takes each parsed chunk and returns the events that it makes; `finish` comes after the
    last chunk ([DONE]), and `fail` instead of it where the answer breaks off. Tool calls come one
    after the other, as in Anthropic's streams: `feed` raises TranslationError where an engine goes
    back to an earlier call.
    """

    def __init__(self, *, model: str, message_id: str) -> None:
        self._model = model
        self._id = message_id
        self._started = False
        self._ended = False
        self._blocks = 0
        self._open: str | None = None
        self._tool: int | None = None
        self._tools: set[int] = set()
        self._numbers = ToolCallNumbers()
        self._counts = UsageReader()
        self._finish: str | None = None
        self._stop: str | None = None

    def start(self) -> bytes:
        """Return the first event, once; `feed` sends it where nobody has asked for it."""
        if self._started:
            return b""
        self._started = True
        return event("message_start", message=empty_message(self._model, self._id)) + PING

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """Translate one chunk. An error of the engine in it ends the stream."""
        if self._ended:
            return b""
        delta = read_delta(chunk)
        if delta.error is not None:
            return self.fail(500, delta.error)
        self._counts.feed(chunk)
        self._finish = delta.finish or self._finish
        self._stop = delta.stop or self._stop
        out = self.start()
        if delta.reasoning:
            out += self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            out += self._delta({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            out += self._enter("text", {"type": "text", "text": ""})
            out += self._delta({"type": "text_delta", "text": delta.text})
        for piece in delta.tool_calls:
            out += self._call(piece)
        return out

    def finish(self) -> bytes:
        """Return the last events: reason and token counts, or an error without a reason to end."""
        if self._ended:
            return b""
        if self._finish is None:
            return self.fail(502, {"message": "The engine's answer broke off before its end."})
        self._ended = True
        reason, sequence = stop_reason(self._finish, self._stop, bool(self._tools))
        return (
            self.start()
            + self._close()
            + event(
                "message_delta",
                delta={"stop_reason": reason, "stop_sequence": sequence},
                usage=usage_fields(self._counts.usage),
            )
            + event("message_stop")
        )

    def fail(self, status: int, error: Mapping[str, Any]) -> bytes:
        """Return the event of a failure, from an OpenAI error object; nothing comes after it."""
        if self._ended:
            return b""
        self._ended = True
        return event("error", error=error_body(status, error)["error"])

    def _call(self, piece: ToolCallDelta) -> bytes:
        out = b""
        number = self._numbers.number(piece)
        if self._open != "tool_use" or self._tool != number:
            if number in self._tools:
                raise TranslationError(
                    "tool_calls", f"The engine went back to tool call {number}, which had ended."
                )
            self._tools.add(number)
            self._tool = number
            out = self._close() + self._enter(
                "tool_use",
                {
                    "type": "tool_use",
                    "id": tool_use_id(piece.id, number, self._id),
                    "name": piece.name,
                    "input": {},
                },
            )
        if piece.arguments:
            out += self._delta({"type": "input_json_delta", "partial_json": piece.arguments})
        return out

    def _enter(self, kind: str, block: dict[str, Any]) -> bytes:
        """Begin a content block, unless one of its kind is open."""
        if self._open == kind:
            return b""
        out = self._close()
        self._open = kind
        return out + event("content_block_start", index=self._blocks, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event("content_block_delta", index=self._blocks, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        out = b""
        if self._open == "thinking":  # the SDKs for other languages wait for it
            out = self._delta({"type": "signature_delta", "signature": ""})
        out += event("content_block_stop", index=self._blocks)
        self._open = None
        self._blocks += 1
        return out
