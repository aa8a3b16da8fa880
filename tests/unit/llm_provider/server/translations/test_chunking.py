"""However an answer is cut into chunks, and its translation into bytes, clients read the same."""

from __future__ import annotations

import json
from typing import Any

import httpx
import ollama
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llm_provider.server.translations.anthropic_message import completion_to_message
from llm_provider.server.translations.ollama_response import Shape, completion_to_answer

from .recorded import anthropic_stream, ollama_stream, stopwatch

EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)

# A busy machine is no reason to fail.
bounded = settings(
    deadline=None, database=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)

# Line separators of Unicode, at which some clients' readers of lines cut. No half characters: the
# SDK's accumulator cannot read these in a tool's arguments, from Anthropic's servers either.
TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\n\r\u2028\u2029\x85{}\"'\\"), max_size=30
)
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | TEXTS
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["get_weather", "turn_on"]),
        st.dictionaries(TEXTS, VALUES | st.lists(VALUES, max_size=2), max_size=3),
    ),
    max_size=3,
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A whole answer, and the same in chunks."""
    message: dict[str, Any] = {"role": "assistant"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    for field in ("reasoning_content", "content"):
        message[field] = draw(TEXTS)
        deltas += [{field: piece} for piece in draw(cuts(message[field]))]
    calls = []
    for index, (name, arguments) in enumerate(draw(CALLS)):
        written = json.dumps(arguments, ensure_ascii=draw(st.booleans()))
        calls.append({"id": f"id{index}", "function": {"name": name, "arguments": written}})
        first, *rest = draw(cuts(written))
        begin = {"name": name, "arguments": first}
        deltas.append({"tool_calls": [{"index": index, "id": f"id{index}", "function": begin}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in rest
        ]
    if calls:
        message["tool_calls"] = calls
    finish = draw(st.sampled_from(["stop", "length"])) if not calls else "tool_calls"
    usage = {"prompt_tokens": draw(st.integers(0, 99)), "completion_tokens": 5}
    whole = {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if draw(st.booleans()):
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        chunks.append({"choices": [], "usage": usage})
    else:
        chunks[-1]["choices"][0]["finish_reason"] = finish
        chunks[-1] |= {"usage": usage}
    return whole, chunks


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    """The same text in pieces, of which some may be empty."""
    places = st.lists(st.integers(0, len(text)), max_size=4).map(sorted)
    return places.map(
        lambda found: [
            text[begin:end] for begin, end in zip([0, *found], [*found, len(text)], strict=True)
        ]
    )


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


@bounded
@given(answers(), st.integers(1, 200))
def test_the_anthropic_sdk_accumulates_the_whole_message(
    answer: tuple[dict[str, Any], list[dict[str, Any]]], size: int
) -> None:
    whole, chunks = answer
    snapshot, buffers = None, dict[int, bytes]()
    for event in SSEDecoder().iter_bytes(iter(cut(anthropic_stream(chunks), size))):
        if event.event != "ping":
            parsed = EVENTS.validate_python(event.json())
            snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    expected = completion_to_message(whole, model="qwen3-4b", message_id="msg_1")
    assert snapshot is not None
    assert _plain(snapshot.to_dict()) == _plain(Message.model_validate(expected).to_dict())


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message without the empty fields that the SDK's accumulator adds."""
    message.pop("stop_details", None)
    for block in message["content"]:
        block.pop("parsed_output", None)
    return message


@bounded
@given(answers(), st.integers(1, 200), st.sampled_from(Shape))
def test_ollama_python_reads_the_whole_answer(
    answer: tuple[dict[str, Any], list[dict[str, Any]]], size: int, shape: Shape
) -> None:
    whole, chunks = answer
    stream = httpx.Response(200, content=iter(cut(ollama_stream(chunks, shape), size)))
    expected = completion_to_answer(whole, shape=shape, model="qwen3:4b", stopwatch=stopwatch())
    text, thinking, calls = "", "", []
    lines = [json.loads(line) for line in stream.iter_lines()]
    for line in lines:
        if shape is Shape.CHAT:
            message = ollama.ChatResponse.model_validate(line).message
            text += message.content or ""
            thinking += message.thinking or ""
            calls += line["message"].get("tool_calls", [])
        else:
            generated = ollama.GenerateResponse.model_validate(line)
            text += generated.response or ""
            thinking += generated.thinking or ""
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    said = expected["message"] if shape is Shape.CHAT else expected
    assert text == (said["content"] if shape is Shape.CHAT else said["response"])
    assert thinking == said.get("thinking", "")
    if shape is Shape.CHAT:
        assert calls == said.get("tool_calls", [])
    for name in ("done_reason", "prompt_eval_count", "eval_count"):
        assert lines[-1][name] == expected[name]
