"""Whole and streamed answers, read by the anthropic SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import TypeAdapter

from llm_provider.server.translations.anthropic_errors import error_body, error_type
from llm_provider.server.translations.anthropic_message import completion_to_message
from llm_provider.server.translations.anthropic_stream import PING, MessageStream
from llm_provider.server.translations.errors import TranslationError

from .recorded import ANSWERS, STREAMS, anthropic_stream

EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def message(name: str, **change: Any) -> Message:
    data = completion_to_message(ANSWERS[name] | change, model="qwen3-4b", message_id="msg_1")
    return Message.model_validate(data, strict=True)


def events(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which the SDK's type takes."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        kind, _, line = block.partition("\n")
        event = json.loads(line.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        if event["type"] not in ("ping", "error"):
            EVENTS.validate_python(event)
        found.append(event)
    return found


def test_a_text_becomes_a_message() -> None:
    found = message("llama_server_text")
    assert found.id == "msg_1"
    assert found.model == "qwen3-4b"
    assert [block.model_dump() for block in found.content] == [
        {"type": "text", "text": "The capital of France is Paris.", "citations": None}
    ]
    assert (found.stop_reason, found.stop_sequence) == ("end_turn", None)


def test_a_message_has_every_field_of_the_api() -> None:
    assert completion_to_message(ANSWERS["ollama_thinking"], model="m", message_id="msg_1") == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "2 and 2 make 4.", "signature": ""},
            {"type": "text", "text": "4"},
        ],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 17,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 31,
        },
    }


def test_a_stream_begins_with_an_empty_message() -> None:
    first = events(MessageStream(model="m", message_id="msg_1").start())[0]
    assert first["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }


def test_cached_tokens_are_counted_apart() -> None:
    usage = message("llama_server_text").usage
    assert usage.input_tokens == 16
    assert usage.cache_read_input_tokens == 5
    assert usage.output_tokens == 8


def test_tokens_are_counted_of_an_old_llama_servers_timings() -> None:
    usage = message("llama_server_text", usage=None).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (16, 5)
    assert usage.output_tokens == 8


def test_thinking_text_and_calls_become_blocks_in_this_order() -> None:
    found = message("llama_server_tools")
    assert [block.type for block in found.content] == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, first, second = (block.model_dump() for block in found.content)
    assert thinking["thinking"] == "Two cities, two calls."
    assert text["text"] == "Let me look."
    assert (first["id"], first["name"]) == ("Vd0hG5pUeXKMrtn1", "get_weather")
    assert [first["input"], second["input"]] == [{"city": "Paris"}, {"city": "Köln"}]
    assert found.stop_reason == "tool_use"


def test_ollamas_name_for_thinking_is_read_too() -> None:
    assert [block.type for block in message("ollama_thinking").content] == ["thinking", "text"]


def test_the_stop_sequence_is_told_where_the_engine_tells() -> None:
    found = message("vllm_stop")
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", "three")


def test_a_call_that_was_cut_is_left_out() -> None:
    found = message("cut_in_a_tool_call")
    assert [block.type for block in found.content] == ["text"]
    assert found.stop_reason == "max_tokens"


@pytest.mark.parametrize("arguments", ["{", "[]", '{"a": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_an_error(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    choice = {"finish_reason": "tool_calls", "message": {"tool_calls": [call]}}
    with pytest.raises(TranslationError, match="The model called f with arguments that are no"):
        message("llama_server_tools", choices=[choice])


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", "max_tokens"), ("content_filter", "refusal"), (None, "end_turn")],
)
def test_finish_reasons(finish: str | None, reason: str) -> None:
    choice = {"finish_reason": finish, "message": {"content": "a"}}
    assert message("llama_server_text", choices=[choice]).stop_reason == reason


def test_a_demanded_call_ends_in_tool_use_whatever_vllm_says() -> None:
    choice = ANSWERS["llama_server_tools"]["choices"][0] | {"finish_reason": "stop"}
    assert message("llama_server_tools", choices=[choice]).stop_reason == "tool_use"


def test_a_call_without_an_id_gets_one() -> None:
    call = {"function": {"name": "f", "arguments": ""}}
    choice = {"finish_reason": "tool_calls", "message": {"tool_calls": [call, call]}}
    first, second = message("llama_server_tools", choices=[choice]).content
    assert first.model_dump()["id"] == "toolu_1_0"
    assert second.model_dump()["id"] == "toolu_1_1"
    assert first.model_dump()["input"] == {}


def test_a_text_is_streamed_in_anthropics_order() -> None:
    found = events(anthropic_stream(STREAMS["llama_server_text"]))
    assert [event["type"] for event in found] == [
        *("message_start", "ping", "content_block_start"),
        *("content_block_delta", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert [event["delta"]["text"] for event in found[3:6]] == [
        *("The capital", " of France", " is Paris.")
    ]
    assert found[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert found[-2]["usage"]["input_tokens"] == 16
    assert found[-2]["usage"]["output_tokens"] == 8


def test_each_event_has_every_field_of_the_api() -> None:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": delta}]}
        for delta in (
            {"reasoning_content": "Hm."},
            {"content": "Yes."},
            {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {"content": "Done."},
        )
    ]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    found = events(anthropic_stream(chunks))
    assert found[2:-2] == [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "Hm."},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "signature_delta", "signature": ""},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "text_delta", "text": "Yes."},
        },
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "{}"},
        },
        {"type": "content_block_stop", "index": 2},
        {
            "type": "content_block_start",
            "index": 3,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 3,
            "delta": {"type": "text_delta", "text": "Done."},
        },
        {"type": "content_block_stop", "index": 3},
    ]
    assert found[-1] == {"type": "message_stop"}


def test_the_stop_sequence_is_told_at_the_end_of_a_stream() -> None:
    found = events(anthropic_stream(STREAMS["vllm_stop"]))
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "three"}


@pytest.mark.parametrize("name", ["llama_server_tools", "ollama_tools"])
def test_calls_are_streamed_one_after_the_other(name: str) -> None:
    found = events(anthropic_stream(STREAMS[name]))
    starts = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block["id"] for block in starts[2:]] == ["Vd0hG5pUeXKMrtn1", "b7x2QwZsLkfA9pPq"]
    assert starts[2]["input"] == {}
    written = ["", ""]
    for event in found:
        if event["type"] == "content_block_delta" and event["index"] >= 2:
            assert event["delta"]["type"] == "input_json_delta"
            written[event["index"] - 2] += event["delta"]["partial_json"]
    assert [json.loads(text) for text in written] == [{"city": "Paris"}, {"city": "Köln"}]
    places = [event["index"] for event in found if event["type"] == "content_block_stop"]
    assert places == [0, 1, 2, 3]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_each_chunk_is_passed_on_at_once() -> None:
    stream = MessageStream(model="m", message_id="msg_1")
    chunks = STREAMS["llama_server_text"]
    assert [event["type"] for event in events(stream.feed(chunks[0]))] == ["message_start", "ping"]
    assert b"The capital" in stream.feed(chunks[1])
    assert b" of France" in stream.feed(chunks[2])


def test_the_start_is_sent_once() -> None:
    stream = MessageStream(model="m", message_id="msg_1")
    assert stream.start().startswith(b"event: message_start\n")
    assert stream.start() == b""
    assert b"message_start" not in stream.feed(STREAMS["llama_server_text"][0])


def test_a_ping_is_an_event() -> None:
    assert events(PING) == [{"type": "ping"}]


def test_an_old_llama_servers_stream_ends_with_its_counts() -> None:
    found = events(anthropic_stream(STREAMS["llama_server_old"]))
    assert found[-2]["delta"]["stop_reason"] == "max_tokens"
    assert found[-2]["usage"]["input_tokens"] == 9
    assert found[-2]["usage"]["output_tokens"] == 2


def test_an_engines_error_ends_the_stream() -> None:
    found = events(anthropic_stream(STREAMS["engine_error"]))
    assert found[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "context size has been exceeded"},
    }
    assert "message_stop" not in [event["type"] for event in found]


def test_an_answer_that_breaks_off_does_not_end_well() -> None:
    found = events(anthropic_stream(STREAMS["broken_off"]))
    assert found[-1]["error"]["message"] == "The engine's answer broke off before its end."


def test_half_a_character_can_be_sent() -> None:
    chunk = {"choices": [{"delta": {"content": "\ud83d"}, "finish_reason": "stop"}]}
    found = events(anthropic_stream([chunk]))
    assert found[3]["delta"]["text"] == "\ud83d"


def test_nothing_follows_the_end() -> None:
    stream = MessageStream(model="m", message_id="msg_1")
    for chunk in STREAMS["llama_server_text"]:
        stream.feed(chunk)
    assert events(stream.finish())[-1] == {"type": "message_stop"}
    assert stream.finish() == b""
    assert stream.feed(STREAMS["llama_server_text"][1]) == b""
    assert stream.fail(500, {}) == b""


def test_nothing_follows_a_failure() -> None:
    stream = MessageStream(model="m", message_id="msg_1")
    assert events(stream.fail(503, {"message": "Busy.", "code": "engine_busy"})) == [
        {
            "type": "error",
            "error": {
                "type": "overloaded_error",
                "message": "Busy.",
                "details": {"error_code": "engine_busy"},
            },
        }
    ]
    assert stream.feed(STREAMS["llama_server_text"][1]) == b""
    assert stream.fail(500, {}) == b""
    assert stream.finish() == b""


def test_going_back_to_an_earlier_call_is_an_error() -> None:
    stream = MessageStream(model="m", message_id="msg_1")
    chunks = STREAMS["llama_server_tools"]
    for chunk in chunks[:8]:
        stream.feed(chunk)
    with pytest.raises(TranslationError, match="went back to tool call 0") as failed:
        stream.feed(chunks[5])
    assert failed.value.param == "tool_calls"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (501, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_error_types(status: int, kind: str) -> None:
    assert error_type(status) == kind


def test_an_error_has_anthropics_shape() -> None:
    error = {
        "message": "No such model.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    body = error_body(404, error, "req_1")
    assert ErrorResponse.model_validate(body, strict=True).error.type == "not_found_error"
    assert body == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "No such model.",
            "details": {"param": "model", "error_code": "model_not_found"},
        },
        "request_id": "req_1",
    }


def test_a_prompt_that_does_not_fit_is_said_in_anthropics_words() -> None:
    error = {"message": "Too long.", "type": "x", "n_prompt_tokens": 5000, "n_ctx": 4096}
    said = error_body(400, error)["error"]
    assert said["message"] == "prompt is too long: 5000 tokens > 4096 maximum. Too long."
    assert said["details"] == {"n_prompt_tokens": 5000, "n_ctx": 4096}
    assert error_body(400, error | {"n_ctx": None})["error"]["message"] == "Too long."


def test_an_error_without_words_says_something() -> None:
    assert error_body(500, {})["error"] == {"type": "api_error", "message": "The request failed."}
