"""A streamed answer's events, and its end, however it is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.errors import MalformedAnswer, StreamInterruptedError
from llm_provider.providers.chat_events import ChatEvents, StreamEnd

from ..fake import DONE, WORDS, event, stream_of


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """`raw` in pieces, cut at `places`."""
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


places = st.lists(st.integers(min_value=0, max_value=10_000), max_size=40)


@given(places)
def test_objects_of_a_stream_cut_anywhere(places: list[int]) -> None:
    raw = stream_of()
    reader = ChatEvents()
    found = [one for piece in cut(raw, places) for one in reader.feed(piece)]
    assert found == list(ChatEvents().feed(raw))
    texts = [one["choices"][0]["delta"].get("content") or "" for one in found]
    assert "".join(texts) == "".join(WORDS)


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (
            b'data: {"error": {"message": "out of slots"}}\n\n',
            StreamInterruptedError,
            "out of slots",
        ),
        (b'data: {"error": "out of slots"}\n\n', StreamInterruptedError, "out of slots"),
        (b"data: hello\n\n", MalformedAnswer, "not JSON: 'hello'"),
        (b"data: " + b"[" * 100_000 + b"\n\n", MalformedAnswer, "not JSON"),
        (b"data: 1\n\n", MalformedAnswer, "not an object: '1'"),
        (b"data: \xff\n\n", MalformedAnswer, "not UTF-8"),
    ],
)
def test_events_tell_of_what_is_wrong(raw: bytes, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        list(ChatEvents().feed(raw))


COMPLETED = b'event: response.completed\ndata: {"type": "response.completed"}\n\n'


@pytest.mark.parametrize(
    ("raw", "complete"),
    [
        (stream_of(), True),
        (b"data:[DONE]\r\n\r\n", True),
        (DONE, True),
        (DONE.rstrip(), True),
        (DONE + b": bye\n\n", True),
        (b"data: [DONE]\r\n\r\n: bye\r\n\r\n:\r\n" + b": " + b"x" * 200 + b"\r\n", True),
        (DONE + b": a comment that is not ended", True),
        (DONE + b": bye\n\n" * 100, True),
        (b": a comment first\n\n" + DONE, True),
        (COMPLETED, True),
        (COMPLETED.replace(b"completed", b"incomplete"), True),
        (COMPLETED.replace(b"completed", b"failed"), True),
        (b"", False),
        (stream_of().removesuffix(DONE), False),
        (DONE + event("more"), False),
        (DONE + b": bye\n\n" + event("more"), False),
        (b": data: [DONE]", False),
        (event("x" * 200 + "event: response.completed" + "x" * 38), False),
        (event("data: [DONE]"), False),
        (event("event: response.completed"), False),
        (b'event: response.created\ndata: {"type": "response.created"}\n\n', False),
    ],
)
def test_a_streams_ending_on_every_cut(raw: bytes, complete: bool) -> None:
    for at in range(len(raw) + 1):
        ending = StreamEnd()
        ending.feed(raw[:at])
        ending.feed(raw[at:])
        assert ending.reached is complete, at
    byte_by_byte = StreamEnd()
    for at in range(len(raw)):
        byte_by_byte.feed(raw[at : at + 1])
    assert byte_by_byte.reached is complete
