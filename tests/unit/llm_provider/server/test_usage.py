"""Token counts of answers, and streams without them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.providers.routes import CHAT, RESPONSES
from llm_provider.server.usage import StreamOutcome, UsageFilter, error_in, tokens_in, tokens_of

from ..fake import DONE, PROMPT_TOKENS, WORDS, error_event, event, stream_of


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """`raw` in pieces, cut at `places`."""
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


places = st.lists(st.integers(min_value=0, max_value=10_000), max_size=40)


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


def crlf(raw: bytes) -> bytes:
    """A stream with the line ends that some servers and proxies send."""
    return raw.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
def test_usage_is_taken_out_of_a_stream_with_crlf_on_every_cut(kind: str) -> None:
    raw = crlf(stream_of(kind=kind, usage=True))
    for at in range(len(raw) + 1):
        without = UsageFilter()
        out = without.feed(raw[:at]) + without.feed(raw[at:]) + without.rest()
        assert out == crlf(stream_of(kind=kind)), at


def test_whole_events_with_crlf_are_not_kept_back() -> None:
    one, two, three = (crlf(event(word)) for word in ("one", "two", "three"))
    without = UsageFilter()
    assert without.feed(one + two) == one + two
    assert without.feed(three[:-1]) == b""
    assert without.feed(three[-1:]) == three
    assert without.feed(crlf(event('he said "usage"'))) == crlf(event('he said "usage"'))


def test_tokens_and_errors_in_a_tail_with_crlf() -> None:
    tail = crlf(stream_of(kind="vllm", usage=True))[-1000:]
    assert tokens_in(tail) == (PROMPT_TOKENS, len(WORDS))
    assert error_in(crlf(event("a") + error_event("no more room") + DONE))


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


def responses(text: str, end: bytes = b"\n", last: str = "completed") -> bytes:
    """A stream of /v1/responses, whose last event repeats the whole text before it tells usage."""
    usage = {"input_tokens": 7, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "response.output_text.delta", "delta": text}]
    response = {"output": [{"content": text}], "usage": usage, "input_messages": [text]}
    events.append({"type": f"response.{last}", "response": response})
    raw = b"".join(
        f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events
    )
    return raw.replace(b"\n", end)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", ["completed", "incomplete", "failed"])
def test_tokens_of_a_response_of_any_length(end: bytes, last: str) -> None:
    for text in ("event: response.completed", '{"usage": {"input_tokens": 1}}' * 200):
        raw = responses(text, end, last)
        for size in (1, 7, 5000, len(raw)):
            outcome = StreamOutcome(RESPONSES)
            for start in range(0, len(raw), size):
                outcome.feed(raw[start : start + size])
            assert outcome.tokens == (7, 6)
            assert not outcome.failed


def test_a_response_that_does_not_tell() -> None:
    for usage in (b'{"input_tokens": "7"}', b"null", b'{"input_tokens"}', b"[" * 9000):
        outcome = StreamOutcome(RESPONSES)
        outcome.feed(
            b'event: response.completed\ndata: {"response": {"usage": ' + usage + b"}}\n\n"
        )
        assert outcome.tokens is None


def test_a_chat_streams_outcome() -> None:
    outcome = StreamOutcome(CHAT)
    for piece in (event("x" * 9000), stream_of()[:-500], stream_of()[-500:]):
        outcome.feed(piece)
        assert len(outcome._tail) <= 4096
    assert (outcome.tokens, outcome.failed) == ((PROMPT_TOKENS, len(WORDS)), False)
    outcome.feed(error_event("no more room") + DONE)
    assert outcome.failed
