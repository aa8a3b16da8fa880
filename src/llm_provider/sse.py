"""Server-sent events, as OpenAI-compatible engines stream them (HTML standard, section 9.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llm_provider.errors import MalformedAnswer, StreamInterruptedError

DONE = "[DONE]"
_ENDS_WITH_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]\s*$")
# /v1/responses has no [DONE]: an event of one of these types is its last.
_LAST_RESPONSE = re.compile(rb"(?:^|[\r\n])event: ?response\.(?:completed|incomplete|failed)")
_TAIL = 64


class EventParser:
    """Turn raw bytes, cut anywhere (inside a character too), into the events' data."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of each event that `chunk` completes; keep what is incomplete.

        Raises MalformedAnswer when a whole line is not UTF-8.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for raw in lines:
            try:
                line = raw.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                raise MalformedAnswer(f"The stream is not UTF-8: {error}.") from error
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def objects(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Yield each event that `chunk` completes as an object, `[DONE]` left out.

        Raises MalformedAnswer for an event that is no JSON object, StreamInterruptedError for one
        that tells of an error.
        """
        for data in self.feed(chunk):
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


class Ending:
    """Whether a streamed answer came to its proper end: `[DONE]`, or a response's last event."""

    def __init__(self) -> None:
        self._tail = b""
        self._last_response = False

    def feed(self, chunk: bytes) -> None:
        tail = self._tail + chunk
        if b"event:" in tail and _LAST_RESPONSE.search(tail):
            self._last_response = True
        self._tail = tail[-_TAIL:]

    @property
    def complete(self) -> bool:
        return self._last_response or _ENDS_WITH_DONE.search(self._tail) is not None


class WithoutUsage:
    """Takes the closing usage event out of a stream whose client did not ask for it.

    The chat API asks for it, to count tokens; whoever did not must get the stream that the engine
    would have sent. What an incomplete event holds is kept back until the rest of it has come.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be passed on now."""
        if not self._rest and chunk.endswith(b"\n\n") and b'"usage"' not in chunk:
            return chunk
        events = (self._rest + chunk).split(b"\n\n")
        self._rest = events.pop()
        return b"".join(event + b"\n\n" for event in events if not _is_usage(event))

    def rest(self) -> bytes:
        """What an incomplete last event left."""
        return self._rest


def _is_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    data = json_of(event)
    return isinstance(data, dict) and data.get("choices") == [] and bool(data.get("usage"))


def json_of(event: bytes) -> object:
    """The JSON of an event's first data line; None where it has none."""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            try:
                return json.loads(line[5:])
            except (ValueError, RecursionError):
                return None
    return None


def tokens_of(answer: object) -> tuple[int, int] | None:
    """Tokens read and written, as an answer or the last events of a stream tell; None if not.

    OpenAI's `usage` in each route's names; else llama-server's own `timings`, which its streams
    carry unasked.
    """
    if not isinstance(answer, dict):
        return None
    inner = answer.get("response")
    for holder, names in (
        (answer.get("usage"), (("prompt_tokens", "completion_tokens"), _RESPONSE_TOKENS)),
        (inner.get("usage") if isinstance(inner, dict) else None, (_RESPONSE_TOKENS,)),
        (answer.get("timings"), (("prompt_n", "predicted_n"),)),
    ):
        if not isinstance(holder, dict):
            continue
        for read, written in names:
            counts = holder.get(read), holder.get(written, 0)
            if isinstance(counts[0], int) and isinstance(counts[1], int):
                cached = holder.get("cache_n", 0)
                return counts[0] + (cached if isinstance(cached, int) else 0), counts[1]
    return None


_RESPONSE_TOKENS = ("input_tokens", "output_tokens")


def tokens_in(tail: bytes) -> tuple[int, int] | None:
    """Tokens read and written, from the last bytes of a stream; None where they do not tell."""
    for event in reversed(tail.split(b"\n\n")):
        if found := tokens_of(json_of(event)):
            return found
    return None


def error_in(tail: bytes) -> bool:
    """Whether the last bytes of a stream tell of an error: some engines end properly behind it."""
    if b'"error"' not in tail:
        return False
    events = [json_of(event) for event in tail.split(b"\n\n")]
    return any(isinstance(event, dict) and event.get("error") for event in events)


def text_in(received: bytes) -> str:
    """The text in the whole events of a streamed chat answer, whatever else it holds."""
    pieces = []
    for event in received.split(b"\n\n"):
        data = json_of(event)
        choices = data.get("choices") if isinstance(data, dict) else None
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            delta = choices[0].get("delta")
            content = delta.get("content") if isinstance(delta, dict) else None
            if isinstance(content, str):
                pieces.append(content)
    return "".join(pieces)
