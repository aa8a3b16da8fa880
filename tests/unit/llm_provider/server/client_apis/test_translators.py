"""Translators: what is decoded of a body, and what a request is for each engine."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from llm_provider.errors import MalformedAnswer
from llm_provider.providers.encoded_body import MOST_VALUES, TooManyValuesError
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.selection import PROVIDERS
from llm_provider.server.client_apis import ollama
from llm_provider.server.client_apis.client_translator import decode_fields
from llm_provider.server.fields import Fields
from llm_provider.server.routes import ROUTES
from llm_provider.server.translator import Asked, Translator

HELLO = [{"role": "user", "content": "Hello"}]
MESSAGE: dict[str, Any] = {"model": "claude", "max_tokens": 9, "messages": HELLO}
COMPLETION = {
    "choices": [{"message": {"content": "Good day."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
CHUNK = b'data: {"choices": [{"delta": {"content": "Good day."}, "finish_reason": null}]}\n\n'


def fields_of(body: dict[str, Any]) -> Fields:
    return Fields.parse(json.dumps(body).encode())


def translator(path: str, body: dict[str, Any], engine: str = "llamacpp") -> Translator:
    route, fields = ROUTES[path], fields_of(body)
    asked = Asked(route, fields, route.wants_stream(fields), "id-1", [])
    return route.translator(asked, PROVIDERS[engine](model="smoke"))


# Bodies.


@pytest.mark.parametrize(
    ("value", "values"),  # as many as the check counts, with the comma behind each
    [(b'{"a":[]}', 3), (b"[[]]", 3), (b'{"a":1}', 2), (b'"ab"', 1), (b"1.5", 1)],
)
def test_what_a_body_of_as_many_values_as_may_be_takes(value: bytes, values: int) -> None:
    count = (MOST_VALUES - 10) // values
    fields = Fields.parse(b'{"a":[' + b",".join([value] * count) + b"]}")
    tracemalloc.start()
    try:
        body = decode_fields(fields)
        assert tracemalloc.get_traced_memory()[1] < 25 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert len(body["a"]) == count


def test_all_fields_together_have_no_more_values_than_one_may_have() -> None:
    half = b"[" + b"[]," * (MOST_VALUES // 4 + 1) + b"1]"
    fields = Fields.parse(b'{"a":' + half + b',"b":' + half + b"}")
    with pytest.raises(TooManyValuesError, match=f"'b' holds more than {MOST_VALUES}") as refused:
        decode_fields(fields)
    assert refused.value.param == "b"
    assert decode_fields(fields_of({"a": [], "b": None, "c": "x"})) == {
        "a": [],
        "b": None,
        "c": "x",
    }


# Requests and answers.


@pytest.mark.parametrize("engine", PROVIDERS)
def test_whether_to_think_is_told_as_the_engine_reads_it(engine: str) -> None:
    thinking = {"thinking": {"type": "disabled"}}
    for body in (
        translator("/v1/messages", MESSAGE | thinking, engine).body,
        translator("/api/chat", MESSAGE | {"think": False, "max_tokens": None}, engine).body,
    ):
        if engine == "ollama":
            assert body["reasoning_effort"] == "none"
        else:
            assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_message_is_named_anew_each_time() -> None:
    answers = [
        json.loads(translator("/v1/messages", MESSAGE).whole(Answer(b"", COMPLETION)))
        for _ in range(2)
    ]
    assert answers[0]["id"].startswith("msg_")
    assert answers[0]["id"] != answers[1]["id"]
    assert answers[0]["content"] == [{"type": "text", "text": "Good day."}]


def test_what_is_dropped_is_named() -> None:
    body = {"model": "smoke", "messages": HELLO, "options": {"num_ctx": 1}, "keep_alive": "5m"}
    made = translator("/api/chat", body)
    assert isinstance(made, ollama.ChatTranslator)
    assert made.dropped == ("keep_alive", "options.num_ctx")


def test_generate_is_a_chat_or_a_completion() -> None:
    body = {"model": "smoke", "prompt": "Hello"}
    assert translator("/api/generate", body).path == "/v1/chat/completions"
    assert translator("/api/generate", body | {"raw": True}).path == "/v1/completions"


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_stream_is_read_wherever_it_is_cut(path: str, cut: int) -> None:
    made = translator(path, MESSAGE | {"stream": True, "max_tokens": 9})
    whole = CHUNK + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    whole += b"data: [DONE]\n\n"
    pieces = [made.feed(whole[start : start + cut]) for start in range(0, len(whole), cut)]
    answer = b"".join(pieces) + made.rest()
    assert answer.count(b"Good day.") == 1
    assert (b"message_stop" if path == "/v1/messages" else b'"done":true') in answer


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"data: \xff\n\n", b"data: " + b"[" * 9999 + b"\n\n"]
)
def test_a_stream_that_is_no_json(path: str, data: bytes) -> None:
    made = translator(path, MESSAGE | {"stream": True})
    with pytest.raises(MalformedAnswer, match="An event of the engine's stream is not JSON"):
        made.feed(data)


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
def test_what_came_before_a_defect_is_given_first(path: str) -> None:
    made = translator(path, MESSAGE | {"stream": True})
    assert b"Good day." in made.feed(CHUNK + b"data: {\n\n")
    with pytest.raises(MalformedAnswer):
        made.rest()
    with pytest.raises(MalformedAnswer):
        made.feed(CHUNK)


@pytest.mark.parametrize("error", ["Down at http://10.0.0.7:8080.", {"message": None}, {"code": 5}])
def test_an_error_in_a_stream(error: object) -> None:
    made = translator("/api/chat", MESSAGE)
    line = json.loads(made.feed(f"data: {json.dumps({'error': error})}\n\n".encode()))
    told = "Down at [address]." if isinstance(error, str) else "The engine failed."
    assert line == {"error": told}


def test_the_most_tokens_that_ollamas_clients_ask_for() -> None:
    for options, most in (
        ({"num_predict": 9}, 9),
        ({"num_predict": -1}, None),
        ({"num_predict": "x"}, None),
        ({}, None),
        ([], None),
        (None, None),
    ):
        assert ollama.most_tokens(fields_of({"options": options})) == most
