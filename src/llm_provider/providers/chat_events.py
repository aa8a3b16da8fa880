"""A streamed answer of OpenAI's API: its events as objects, and whether it came to its end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llm_provider.errors import MalformedAnswer, StreamInterruptedError
from llm_provider.http.sse import DONE, EventParser

_ENDS_WITH_DONE = re.compile(rb"[\r\n]data: ?\[DONE\][ \t]*(?:[\r\n]\s*:?)?\Z")
LAST_RESPONSE = re.compile(rb"[\r\n]event: ?response\.(?:completed|incomplete|failed)")
"""The name of the last event of /v1/responses, which has no [DONE]."""
# Servers and proxies send comments to keep a connection open, behind the last event too.
_COMMENT = re.compile(rb"[\r\n]+:[^\r\n]*(\Z)?")
_TAIL = 64


class ChatEvents:
    """Turn a stream's raw bytes, cut anywhere, into the objects that its events hold."""

    def __init__(self) -> None:
        self._parser = EventParser()

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Yield each event that `chunk` completes, `[DONE]` left out.

        Raises MalformedAnswer for what is not UTF-8 or no JSON object, StreamInterruptedError for
        an event that tells of an error.
        """
        try:
            events = self._parser.feed(chunk)
        except UnicodeDecodeError as error:
            raise MalformedAnswer(f"The stream is not UTF-8: {error}.") from error
        for data in events:
            if data != DONE:
                yield _object(data)


def _object(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer(f"An event of the stream is not JSON: {data[:80]!r}.") from error
    if not isinstance(event, dict):
        raise MalformedAnswer(f"An event of the stream is not an object: {data[:80]!r}.")
    if problem := event.get("error"):
        words = problem.get("message") if isinstance(problem, dict) else problem
        raise StreamInterruptedError(f"The stream broke off with an error: {words}")
    return event


class StreamEnd:
    """Whether a streamed answer came to its proper end: `[DONE]`, or a response's last event."""

    def __init__(self) -> None:
        self._tail = b"\n"  # a line begins
        self._last_response = False

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the stream."""
        tail = self._tail + chunk
        if b"event:" in tail and LAST_RESPONSE.search(tail):
            self._last_response = True
        if b"\n:" in tail or b"\r:" in tail:
            # Of a comment that goes on in the next chunk, the colon stays.
            tail = _COMMENT.sub(lambda found: b"\n:" if found[1] is not None else b"", tail)
        self._tail = tail[-_TAIL:]

    @property
    def reached(self) -> bool:
        """Whether nothing is missing of what has been taken in."""
        return self._last_response or _ENDS_WITH_DONE.search(self._tail) is not None
