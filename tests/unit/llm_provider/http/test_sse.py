"""Server-sent events, read and filtered, however they are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.errors import MalformedAnswer, StreamInterruptedError, text_in
from llm_provider.http.sse import EventParser
from llm_provider.providers.chat_events import ChatEvents, StreamEnd
from llm_provider.server.usage import UsageFilter, error_in, tokens_in, tokens_of

from ..fake import ANSWER, DONE, PROMPT_TOKENS, WORDS, error_event, event, stream_of


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """`raw` in pieces, cut at `places`."""
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


places = st.lists(st.integers(min_value=0, max_value=10_000), max_size=40)


def test_event_parser_on_every_cut() -> None:
    raw = b": note\r\ndata: a\xc3\xa9\r\n\r\nevent: x\ndata:b\ndata: c\n\ndata: [DONE]\n\n"
    for at in range(len(raw)):
        parser = EventParser()
        assert parser.feed(raw[:at]) + parser.feed(raw[at:]) == ["aé", "b\nc", "[DONE]"]


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
        (COMPLETED, True),
        (COMPLETED.replace(b"completed", b"incomplete"), True),
        (COMPLETED.replace(b"completed", b"failed"), True),
        (b"", False),
        (stream_of().removesuffix(DONE), False),
        (DONE + event("more"), False),
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


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
def test_usage_is_taken_out_on_every_cut(kind: str) -> None:
    raw = stream_of(kind=kind, usage=True)
    for at in range(len(raw) + 1):
        without = UsageFilter()
        out = without.feed(raw[:at]) + without.feed(raw[at:]) + without.rest()
        assert out == stream_of(kind=kind), at


@given(places)
def test_usage_is_taken_out_of_many_pieces(places: list[int]) -> None:
    raw = stream_of(kind="vllm", usage=True)
    without = UsageFilter()
    out = b"".join(without.feed(piece) for piece in cut(raw, places)) + without.rest()
    assert out == stream_of(kind="vllm")


@pytest.mark.parametrize(
    "raw",
    [
        stream_of(),
        event('he said "usage" and {"choices": [], "usage": 1}') + DONE,
        b'data: {"choices": [], "usage": null}\n\n' + DONE,
        b'data: {"choices": [{"delta": {}}], "usage": {"prompt_tokens": 1}}\n\n' + DONE,
        b'data: {"usage": \n\ndata: [1, "usage"]\n\n' + DONE,
        b'event: error\ndata: {"error": {"usage": 1}}\n\n',
        b"\xff\xfe no stream",
        b'data: {"choices": [], "usage": {"prompt',
    ],
)
def test_nothing_else_is_taken_out(raw: bytes) -> None:
    for at in range(len(raw) + 1):
        without = UsageFilter()
        out = without.feed(raw[:at]) + without.feed(raw[at:]) + without.rest()
        assert out == raw, at


def test_whole_events_are_not_kept_back() -> None:
    without = UsageFilter()
    assert without.feed(event("one") + event("two")) == event("one") + event("two")
    assert without.feed(event("three")[:-1]) == b""
    assert without.feed(b"\n" + event("four")) == event("three") + event("four")


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 6}}, (7, 6)),
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, (7, 0)),  # embeddings
        ({"usage": {"input_tokens": 7, "output_tokens": 6}}, (7, 6)),
        ({"response": {"usage": {"input_tokens": 7, "output_tokens": 6}}}, (7, 6)),
        ({"timings": {"prompt_n": 1, "cache_n": 6, "predicted_n": 6}}, (7, 6)),
        ({"timings": {"prompt_n": 7, "predicted_n": 6}}, (7, 6)),
        ({"usage": None, "timings": {"prompt_n": 7, "predicted_n": 6}}, (7, 6)),
        ({"usage": {"prompt_tokens": "7", "completion_tokens": 6}}, None),
        ({"usage": 7, "timings": [], "response": "x"}, None),
        ({}, None),
        ([], None),
    ],
)
def test_tokens_of_an_answer(answer: Any, tokens: tuple[int, int] | None) -> None:
    assert tokens_of(answer) == tokens
    assert tokens_in(f"data: {json.dumps(answer)}\n\n".encode() + DONE) == tokens


def test_tokens_in_a_streams_tail() -> None:
    for raw in (
        stream_of(),
        stream_of(usage=True),
        stream_of(kind="ollama", usage=True),
        stream_of(kind="vllm", usage=True),
    ):
        assert tokens_in(raw[-1000:]) == (PROMPT_TOKENS, len(WORDS))
    assert tokens_in(stream_of(kind="ollama")) is None
    assert tokens_in(b"usage \xff") is None


@pytest.mark.parametrize(
    ("tail", "tells"),
    [
        (error_event("no more room"), True),
        (event("a") + error_event("no more room") + DONE, True),
        (b'ken"}\n\n' + error_event("no more room") + DONE, True),
        (event('he said "error"') + DONE, False),
        (b'data: {"error": null}\n\n' + DONE, False),
        (b'data: ["error"]\n\n', False),
        (b'data: {"error"', False),
        (b"", False),
    ],
)
def test_errors_in_a_streams_tail(tail: bytes, tells: bool) -> None:
    assert error_in(tail) is tells


def test_text_in_what_had_arrived() -> None:
    assert text_in(stream_of()).strip() == ANSWER
    broken = stream_of()[:-150] + b'\n\ndata: {"choices": [{"delta": {"content": 1}}]}\n\ndata: [1]'
    assert ANSWER.startswith(text_in(broken).strip())
    assert text_in(b"\xff\xfe") == text_in(b"") == ""
