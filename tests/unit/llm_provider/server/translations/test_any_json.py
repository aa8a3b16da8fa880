"""Whatever JSON a client or an engine sends: a translation, or a TranslationError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_provider.server.translations.anthropic_errors import error_body
from llm_provider.server.translations.anthropic_message import completion_to_message
from llm_provider.server.translations.anthropic_request import (
    count_tokens_to_chat,
    messages_to_chat,
)
from llm_provider.server.translations.anthropic_stream import MessageStream
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.ollama_embed import (
    embed_answer,
    embed_to_embeddings,
    embeddings_answer,
    embeddings_to_embeddings,
)
from llm_provider.server.translations.ollama_models import shown_name
from llm_provider.server.translations.ollama_request import (
    chat_to_chat,
    generate_to_chat,
    is_load_request,
)
from llm_provider.server.translations.ollama_response import Shape, completion_to_answer
from llm_provider.server.translations.ollama_stream import OllamaStream

from .recorded import STREAMS, load, stopwatch

# A busy machine is no reason to fail.
bounded = settings(
    deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)

KEYS = st.sampled_from(
    [
        *("model", "messages", "role", "content", "type", "text", "system", "tools", "name"),
        *("tool_calls", "function", "arguments", "parameters", "properties", "input_schema"),
        *("choices", "delta", "message", "index", "id", "finish_reason", "usage", "timings"),
        *("prompt_tokens", "prompt_tokens_details", "prompt_ms", "error", "options", "stop"),
        *("data", "embedding", "logprobs", "thinking", "source", "images", "input", "prompt"),
        *("tool_choice", "output_config", "format", "think", "keep_alive", "max_tokens", "code"),
    ]
)
WORDS = st.sampled_from(
    [*("user", "assistant", "tool", "text", "image", "tool_use", "tool_result", "thinking", "json")]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=6)

REQUESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any]]] = {
    "messages": (messages_to_chat, load("anthropic_requests")["tool_results"]["request"]),
    "count_tokens": (count_tokens_to_chat, load("anthropic_requests")["tools"]["request"]),
    "chat": (chat_to_chat, load("ollama_requests")["home_assistant_after_tool"]["request"]),
    "generate": (generate_to_chat, load("ollama_requests")["generate"]["request"]),
    "embed": (embed_to_embeddings, {"model": "m", "input": ["a"]}),
    "embeddings": (embeddings_to_embeddings, {"model": "m", "prompt": "a"}),
    "load": (is_load_request, {"model": "m"}),
    "show": (shown_name, {"model": "m"}),
}


@pytest.mark.parametrize("name", REQUESTS)
@bounded
@given(OBJECTS)
def test_any_request_is_translated_or_refused(name: str, body: dict[str, Any]) -> None:
    translate, whole = REQUESTS[name]
    for request in (body, whole | body):
        try:
            translate(request)
        except TranslationError as error:
            assert error.param
            assert str(error)


@bounded
@given(st.data())
def test_a_request_that_is_wrong_in_one_place_is_translated_or_refused(data: st.DataObject) -> None:
    translate, whole = data.draw(st.sampled_from(list(REQUESTS.values())))
    request = json.loads(json.dumps(whole))
    place = request
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    try:
        translate(request)
    except TranslationError as error:
        assert error.param


@bounded
@given(OBJECTS)
def test_any_answer_is_translated_or_refused(answer: dict[str, Any]) -> None:
    translations: tuple[Callable[[], Any], ...] = (
        lambda: completion_to_message(answer, model="m", message_id="msg_1"),
        lambda: completion_to_answer(answer, shape=Shape.CHAT, model="m", stopwatch=stopwatch()),
        lambda: embed_answer(answer, model="m", stopwatch=stopwatch()),
        lambda: embeddings_answer(answer),
        lambda: error_body(500, answer),
    )
    for translate in translations:
        try:
            json.dumps(translate())
        except TranslationError as error:
            assert error.param


@bounded
@given(st.lists(OBJECTS, max_size=3), st.sampled_from(list(STREAMS)))
def test_any_chunk_of_a_stream_is_translated_or_refused(
    odd: list[dict[str, Any]], name: str
) -> None:
    chunks = [*STREAMS[name][:2], *odd, *STREAMS[name][2:]]
    message = MessageStream(model="m", message_id="msg_1")
    lines = OllamaStream(shape=Shape.CHAT, model="m", stopwatch=stopwatch())
    for stream in (message, lines):
        try:
            data = b"".join(stream.feed(chunk) for chunk in chunks) + stream.finish()
        except TranslationError as error:
            assert error.param
            continue
        for line in data.splitlines():
            if line and not line.startswith(b"event: "):
                json.loads(line.removeprefix(b"data: "))
