"""Server-sent events, as OpenAI-compatible engines stream them (HTML standard, section 9.2)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from llm_provider.errors import Interrupted, MalformedAnswer

_DONE = "[DONE]"
_ENDS_WITH_DONE = re.compile(rb"(^|[\r\n])data: ?\[DONE\]\s*$")


class EventParser:
    """Turn raw bytes, cut anywhere (inside a character too), into the events' data."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of each event that `chunk` completes; keep what is incomplete.

        Raises UnicodeDecodeError when a whole line is not UTF-8.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for raw in lines:
            line = raw.removesuffix(b"\r").decode()
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events


async def events(stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[dict[str, Any], None]:
    """Yield each event of a streamed answer as an object, `[DONE]` left out; closes `stream`.

    Raises MalformedAnswer for an event that is no JSON object, Interrupted for one that tells of
    an error, and whatever `stream` raises.
    """
    parser = EventParser()
    async with aclosing(stream):
        async for chunk in stream:
            try:
                whole = parser.feed(chunk)
            except UnicodeDecodeError as error:
                raise MalformedAnswer(f"The stream is not UTF-8: {error}.") from error
            for data in whole:
                if data != _DONE:
                    yield _event(data)


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise MalformedAnswer(f"An event of the stream is not JSON: {data[:80]!r}.") from error
    if not isinstance(event, dict):
        raise MalformedAnswer(f"An event of the stream is not an object: {data[:80]!r}.")
    if problem := event.get("error"):
        words = problem.get("message") if isinstance(problem, dict) else problem
        raise Interrupted(f"The stream broke off with an error: {words}")
    return event


def is_complete(received: bytes | bytearray) -> bool:
    """Whether a streamed answer ended as it must, with `data: [DONE]` as its last line."""
    return _ENDS_WITH_DONE.search(bytes(received[-64:])) is not None
