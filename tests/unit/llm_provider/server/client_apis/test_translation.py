"""Translations of requests: what is decoded, and what each API's request becomes."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from llm_provider.providers.support import CHATTING, COMPLETING, EMBEDDING
from llm_provider.server.client_apis import anthropic, ollama
from llm_provider.server.client_apis.translation import MOST_VALUES, decode_object, thinking_style
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.ollama_response import Shape
from llm_provider.server.translations.thinking import ThinkingStyle

HELLO = [{"role": "user", "content": "Hello"}]
COMPLETION = {
    "choices": [{"message": {"content": "Good day."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
CHUNK = {"choices": [{"delta": {"content": "Good day."}, "finish_reason": None}]}
TEMPLATE = ThinkingStyle.TEMPLATE


# Bodies.


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"[]", "The body must be a JSON object."),
        (b"{", "The body is not JSON: "),
        (b"\xff", "The body is not JSON: "),
        (b"[" * 5000, "The body is not JSON: "),
    ],
)
def test_a_body_that_is_none(data: bytes, sentence: str) -> None:
    with pytest.raises(TranslationError, match=f"^{sentence}") as refused:
        decode_object(data)
    assert refused.value.param == ""


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""', b"1", b'{"a":[]}'])
def test_a_body_of_too_many_values_is_not_decoded(value: bytes) -> None:
    data = b'{"messages":[' + b",".join([value] * 1_000_000) + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(TranslationError, match=r"more than 200000 values\. Send fewer"):
            decode_object(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("value", "counted"),  # values as the check counts them, with the comma behind each
    [(b'{"a":[]}', 4), (b"[[]]", 3), (b'{"a":1}', 3), (b'"ab"', 2), (b"1.5", 1)],
)
def test_what_a_body_of_as_many_values_as_may_be_takes(value: bytes, counted: int) -> None:
    count = (MOST_VALUES - 10) // counted
    data = b'{"a":[' + b",".join([value] * count) + b"]}"
    tracemalloc.start()
    try:
        body = decode_object(data)
        assert tracemalloc.get_traced_memory()[1] < 25 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert len(body["a"]) == count


def test_a_text_is_one_value_whatever_it_holds() -> None:
    text = '[{"a": 1}, \\"]' * 200_000
    assert decode_object(json.dumps({"text": text}).encode()) == {"text": text}
    view = memoryview(bytearray(json.dumps({"text": text}).encode()))
    assert decode_object(view) == {"text": text}


def test_how_engines_are_told_whether_to_think() -> None:
    assert thinking_style("ollama") is ThinkingStyle.EFFORT
    assert {thinking_style(name) for name in ("llamacpp", "vllm")} == {TEMPLATE}


# Anthropic's.


def test_a_message() -> None:
    body = {"model": "claude", "max_tokens": 9, "messages": HELLO}
    translation = anthropic.messages(body)
    assert (translation.feature, translation.model) == (CHATTING, "claude")
    assert translation.stream is None
    translated = translation.request(body, TEMPLATE)
    assert translated.body == {"model": "claude", "messages": HELLO, "max_tokens": 9}
    answer = translation.whole(COMPLETION)
    assert answer["content"] == [{"type": "text", "text": "Good day."}]
    assert answer["model"] == "claude"
    assert answer["id"].startswith("msg_")
    assert anthropic.messages(body).whole(COMPLETION)["id"] != answer["id"]


def test_a_streamed_message() -> None:
    body = {"model": "claude", "max_tokens": 9, "messages": HELLO, "stream": True}
    translation = anthropic.messages(body)
    assert translation.stream is not None
    assert translation.stream_type == b"text/event-stream; charset=utf-8"
    stream = translation.stream()
    assert b'"text":"Good day."' in stream.feed(CHUNK)
    assert stream.fail(504, {"message": "Silence."}).startswith(b"event: error\n")
    assert b'"type":"timeout_error"' in translation.stream().fail(504, {"message": "Silence."})


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "model"), ({"model": 1}, "model"), ({"model": "a", "stream": 1}, "stream")],
)
def test_a_message_that_is_none(body: dict[str, Any], param: str) -> None:
    with pytest.raises(TranslationError) as refused:
        anthropic.messages(body)
    assert refused.value.param == param


# Ollama's.


def test_a_chat_of_ollama() -> None:
    body = {"model": "smoke:latest", "messages": HELLO, "stream": False, "think": True}
    translation = ollama.chat(body)
    assert (translation.feature, translation.model) == (CHATTING, "smoke")
    assert translation.stream is None
    assert translation.request(body, TEMPLATE).body["chat_template_kwargs"]
    assert translation.request(body, ThinkingStyle.EFFORT).body["reasoning_effort"] == "medium"
    answer = translation.whole(COMPLETION)
    assert answer["message"] == {"role": "assistant", "content": "Good day."}
    assert answer["model"] == "smoke:latest"


def test_it_is_streamed_unless_it_is_not() -> None:
    translation = ollama.chat({"model": "smoke", "messages": HELLO})
    assert translation.stream is not None
    assert translation.stream_type == b"application/x-ndjson"
    stream = translation.stream()
    assert json.loads(stream.feed(CHUNK))["message"]["content"] == "Good day."
    assert json.loads(stream.fail(502, {"message": "It broke."})) == {"error": "It broke."}
    assert json.loads(translation.stream().fail(502, {})) == {"error": "The request failed."}
    done = translation.stream()
    done.feed({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert json.loads(done.finish())["done"] is True


def test_generate() -> None:
    body: dict[str, Any] = {"model": "smoke", "prompt": "Hello", "stream": False}
    translation = ollama.generate(body)
    assert translation.feature is CHATTING
    assert translation.request(body, TEMPLATE).body["messages"] == HELLO
    assert translation.whole(COMPLETION)["response"] == "Good day."
    raw = body | {"raw": True}
    assert ollama.generate(raw).feature is COMPLETING
    assert ollama.generate(raw).request(raw, TEMPLATE).body["prompt"] == "Hello"


def test_embeddings() -> None:
    vectors = {"data": [{"index": 0, "embedding": [0.5, 1.0]}], "usage": {"prompt_tokens": 2}}
    body = {"model": "smoke:latest", "input": "Hello"}
    translation = ollama.embed(body)
    assert (translation.feature, translation.model) == (EMBEDDING, "smoke")
    assert translation.stream is None
    assert translation.request(body, TEMPLATE).body["input"] == ["Hello"]
    answer = translation.whole(vectors)
    assert (answer["embeddings"], answer["prompt_eval_count"]) == ([[0.5, 1.0]], 2)
    old = {"model": "smoke", "prompt": "Hello"}
    translation = ollama.embeddings(old)
    assert translation.feature is EMBEDDING
    assert translation.request(old, TEMPLATE).body["input"] == ["Hello"]
    assert translation.whole(vectors) == {"embedding": [0.5, 1.0]}


@pytest.mark.parametrize("translate", [ollama.chat, ollama.generate, ollama.embed])
def test_a_request_without_a_model(translate: Any) -> None:
    with pytest.raises(TranslationError, match=r"'model' is missing"):
        translate({"messages": HELLO, "prompt": "Hello", "input": "Hello"})


def test_a_request_that_only_loads_the_model() -> None:
    answer = ollama.loaded({"model": "smoke"}, Shape.GENERATE)
    assert answer is not None
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "load", "")
    assert ollama.loaded({"model": "smoke", "prompt": "Hello"}, Shape.GENERATE) is None
    assert ollama.loaded({"model": "smoke", "messages": HELLO}, Shape.CHAT) is None
    with pytest.raises(TranslationError, match="the model stays loaded"):
        ollama.loaded({"model": "smoke", "keep_alive": 0}, Shape.CHAT)
