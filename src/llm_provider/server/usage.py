"""How many tokens an answer took, as it tells; and streams without what tells of them."""

from __future__ import annotations

import json

from llm_provider.http.blocks import cut_blocks, ends_block, read_block, split_blocks
from llm_provider.providers.chat_events import LAST_RESPONSE
from llm_provider.providers.routes import RESPONSES
from llm_provider.server.json_member import JSONMember

# Where the last events of a stream are, which tell of its tokens.
_TAIL = 4096
_NAME = 64


class UsageFilter:
    """Takes the closing usage event out of a stream whose client did not ask for it.

    The chat API asks for it, to count tokens; whoever did not must get the stream that the engine
    would have sent. What an incomplete event holds is kept back until the rest of it has come.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be passed on now."""
        if not self._rest and ends_block(chunk) and b'"usage"' not in chunk:
            return chunk
        *events, self._rest = cut_blocks(self._rest + chunk)
        return b"".join(event for event in events if not _is_usage(event))

    def rest(self) -> bytes:
        """What an incomplete last event left."""
        return self._rest


def _is_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    data = read_block(event)
    return isinstance(data, dict) and data.get("choices") == [] and bool(data.get("usage"))


class StreamOutcome:
    """What a stream from an engine's route tells of its tokens and of an error; little is kept."""

    def __init__(self, engine_path: str) -> None:
        self._tail = b""
        self._response = _ResponseUsage() if engine_path == RESPONSES else None

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        self._tail = (self._tail + chunk)[-_TAIL:]
        if self._response is not None:
            self._response.feed(chunk)

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Tokens read and written; None where the stream does not tell."""
        return tokens_in(self._tail) if self._response is None else self._response.tokens

    @property
    def failed(self) -> bool:
        """Whether the last events tell of an error: some engines end properly behind it."""
        return error_in(self._tail)


class _ResponseUsage:
    """The usage of a stream of /v1/responses: in its last event, which repeats the whole answer."""

    def __init__(self) -> None:
        self._before: bytes | None = b"\n"
        self._usage = JSONMember("response", "usage")

    def feed(self, chunk: bytes) -> None:
        if self._before is None:
            self._usage.feed(chunk)
            return
        window = self._before + chunk
        if (name := LAST_RESPONSE.search(window)) is None:
            self._before = window[-_NAME:]
        else:
            self._before = None
            self._usage.feed(window[name.end() :])

    @property
    def tokens(self) -> tuple[int, int] | None:
        if self._usage.raw is None:
            return None
        try:
            return tokens_of({"usage": json.loads(self._usage.raw)})
        except (ValueError, RecursionError):
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
    for event in reversed(split_blocks(tail)):
        if found := tokens_of(read_block(event)):
            return found
    return None


def error_in(tail: bytes) -> bool:
    """Whether the last bytes of a stream tell of an error: some engines end properly behind it."""
    if b'"error"' not in tail:
        return False
    events = [read_block(event) for event in split_blocks(tail)]
    return any(isinstance(event, dict) and event.get("error") for event in events)
