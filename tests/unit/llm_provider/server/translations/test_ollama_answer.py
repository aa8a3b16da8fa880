"""Whole and streamed answers, read by ollama-python's own types."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import ollama
import pytest

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.ollama_embed import embed_answer, embeddings_answer
from llm_provider.server.translations.ollama_models import (
    ModelInfo,
    running,
    show,
    shown_name,
    tags,
    version,
)
from llm_provider.server.translations.ollama_response import (
    Shape,
    Stopwatch,
    completion_to_answer,
    error_body,
    load_answer,
)
from llm_provider.server.translations.ollama_stream import OllamaStream

from .recorded import ANSWERS, STREAMS, ollama_stream, stopwatch

MODEL = ModelInfo(
    name="smollm2-135m",
    modified="2026-11-30T00:00:00Z",
    size=98_362_432,
    size_vram=98_362_432,
    digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    family="llama",
    parameters="135M",
    quantization="Q4_1",
    context_size=8192,
    embedding_size=576,
    capabilities=("completion", "tools"),
)


def answer(name: str, shape: Shape = Shape.CHAT, **change: Any) -> dict[str, Any]:
    return completion_to_answer(
        ANSWERS[name] | change, shape=shape, model="qwen3:4b", stopwatch=stopwatch()
    )


def lines(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_a_chat_answer() -> None:
    data = answer("llama_server_text")
    found = ollama.ChatResponse.model_validate(data)
    assert found.model == "qwen3:4b"
    assert found.message.role == "assistant"
    assert found.message.content == "The capital of France is Paris."
    assert (found.done, found.done_reason) == (True, "stop")
    assert (found.prompt_eval_count, found.eval_count) == (21, 8)
    assert data["message"].keys() == {"role", "content"}


def test_the_time_of_an_answer_is_when_it_was_made() -> None:
    created = answer("llama_server_text")["created_at"]
    assert created == "2025-11-30T00:00:00.001000Z"
    assert datetime.fromisoformat(created).tzinfo == UTC


def test_durations_are_the_engines_own() -> None:
    watch = stopwatch()
    for _ in range(200):
        assert watch.elapsed
    found = completion_to_answer(
        ANSWERS["llama_server_text"], shape=Shape.CHAT, model="m", stopwatch=watch
    )
    assert found["prompt_eval_duration"] == 57_142_000
    assert found["eval_duration"] == 76_190_000
    assert found["total_duration"] == 202_000_000
    assert found["load_duration"] == 202_000_000 - 57_142_000 - 76_190_000


def test_an_answer_in_one_piece_without_durations_has_a_total() -> None:
    found = answer("ollama_thinking")
    assert found["total_duration"] == found["eval_duration"] == 2_000_000
    assert "load_duration" not in found
    assert "prompt_eval_duration" not in found


def test_durations_of_a_stream_are_measured_from_its_first_piece() -> None:
    last = lines(ollama_stream(STREAMS["vllm_stop"]))[-1]
    # The clock ticks at the request, the first piece, each line, and the end.
    assert last["prompt_eval_duration"] == 1_000_000
    assert last["eval_duration"] == last["total_duration"] - 1_000_000
    assert last["total_duration"] == 5_000_000


def test_the_first_piece_is_the_first_that_holds_something() -> None:
    now = [0]
    stream = OllamaStream(shape=Shape.CHAT, model="m", stopwatch=Stopwatch(0, lambda: now[0]))
    for time, chunk in zip((5, 40, 70, 80, 90), STREAMS["vllm_stop"], strict=False):
        now[0] = time
        stream.feed(chunk)
    now[0] = 100
    last = lines(stream.finish())[-1]
    assert last["prompt_eval_duration"] == 40
    assert last["eval_duration"] == 60
    assert last["total_duration"] == 100


def test_durations_never_exceed_the_total() -> None:
    last = lines(ollama_stream(STREAMS["llama_server_text"]))[-1]
    assert last["prompt_eval_duration"] == last["total_duration"]
    assert "eval_duration" not in last


def test_thinking_and_calls_of_a_chat_answer() -> None:
    found = ollama.ChatResponse.model_validate(answer("llama_server_tools"))
    assert found.message.thinking == "Two cities, two calls."
    assert found.message.content == "Let me look."
    calls = found.message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "get_weather"]
    assert [call.function.arguments for call in calls] == [{"city": "Paris"}, {"city": "Köln"}]
    assert found.done_reason == "stop"


def test_calls_have_every_field_of_the_api() -> None:
    assert answer("llama_server_tools")["message"]["tool_calls"] == [
        {
            "id": "Vd0hG5pUeXKMrtn1",
            "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
        },
        {
            "id": "b7x2QwZsLkfA9pPq",
            "function": {"index": 1, "name": "get_weather", "arguments": {"city": "Köln"}},
        },
    ]
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    choice = {"finish_reason": "tool_calls", "message": {"tool_calls": [call]}}
    assert answer("llama_server_tools", choices=[choice])["message"]["tool_calls"] == [
        {"function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
    ]


def test_a_generated_answer() -> None:
    found = ollama.GenerateResponse.model_validate(answer("ollama_thinking", Shape.GENERATE))
    assert found.response == "4"
    assert found.thinking == "2 and 2 make 4."
    raw = ollama.GenerateResponse.model_validate(answer("llama_server_completion", Shape.GENERATE))
    assert raw.response == "def f(): pass"
    assert raw.done_reason == "length"


def test_a_call_that_was_cut_is_left_out() -> None:
    found = answer("cut_in_a_tool_call")
    assert "tool_calls" not in found["message"]
    assert found["done_reason"] == "length"


def test_a_cut_call_before_another_is_an_error() -> None:
    call = ANSWERS["cut_in_a_tool_call"]["choices"][0]["message"]["tool_calls"][0]
    message = {"tool_calls": [call, call]}
    with pytest.raises(TranslationError, match="called get_weather with arguments"):
        answer("cut_in_a_tool_call", choices=[{"finish_reason": "length", "message": message}])


def test_log_probabilities() -> None:
    entries = [
        {
            "token": "4",
            "logprob": -0.1,
            "bytes": [52],
            "top_logprobs": [{"token": "4", "logprob": -0.1, "bytes": [52]}],
        }
    ]
    choice = {
        "finish_reason": "stop",
        "message": {"content": "4"},
        "logprobs": {"content": entries},
    }
    found = ollama.ChatResponse.model_validate(answer("ollama_thinking", choices=[choice]))
    assert found.logprobs is not None
    assert found.logprobs[0].token == "4"
    assert (found.logprobs[0].top_logprobs or [])[0].logprob == -0.1


def test_a_stream_is_a_line_for_each_piece() -> None:
    found = lines(ollama_stream(STREAMS["llama_server_text"]))
    assert [entry["message"]["content"] for entry in found] == [
        *("The capital", " of France", " is Paris.", "")
    ]
    assert [entry["done"] for entry in found] == [False, False, False, True]
    assert found[-1]["done_reason"] == "stop"
    assert (found[-1]["prompt_eval_count"], found[-1]["eval_count"]) == (21, 8)
    for entry in found:
        ollama.ChatResponse.model_validate(entry)


def test_a_stream_of_generate() -> None:
    found = lines(ollama_stream(STREAMS["llama_server_old"], Shape.GENERATE))
    assert [entry["response"] for entry in found] == ["Hello", "!", ""]
    assert found[-1]["done_reason"] == "length"
    assert (found[-1]["prompt_eval_count"], found[-1]["eval_count"]) == (9, 2)


@pytest.mark.parametrize("name", ["llama_server_tools", "ollama_tools"])
def test_calls_of_a_stream_come_whole(name: str) -> None:
    found = [
        ollama.ChatResponse.model_validate(entry) for entry in lines(ollama_stream(STREAMS[name]))
    ]
    assert "".join(entry.message.thinking or "" for entry in found) == "Two cities, two calls."
    with_calls = [entry for entry in found if entry.message.tool_calls is not None]
    assert len(with_calls) == 1
    assert with_calls[0].done is False
    calls = with_calls[0].message.tool_calls or []
    assert [call.function.arguments for call in calls] == [{"city": "Paris"}, {"city": "Köln"}]
    assert found[-1].done is True
    whole = answer("llama_server_tools")["message"]["tool_calls"]
    assert lines(ollama_stream(STREAMS[name]))[-2]["message"]["tool_calls"] == whole


def test_an_engines_error_ends_the_stream() -> None:
    found = lines(ollama_stream(STREAMS["engine_error"]))
    assert found[-1] == {"error": "context size has been exceeded"}
    assert [entry.get("done") for entry in found] == [False, None]


def test_an_answer_that_breaks_off_does_not_end_well() -> None:
    found = lines(ollama_stream(STREAMS["broken_off"]))
    assert found[-1] == {"error": "The engine's answer broke off before its end."}


def test_an_error_without_words_says_something() -> None:
    assert lines(ollama_stream([{"error": {"code": 500}}])) == [{"error": "The engine failed."}]
    assert lines(ollama_stream([{"error": "Broken."}])) == [{"error": "Broken."}]


def test_half_a_character_can_be_sent() -> None:
    chunk = {"choices": [{"delta": {"content": "\ud83d"}, "finish_reason": "stop"}]}
    assert lines(ollama_stream([chunk]))[0]["message"]["content"] == "\ud83d"


def test_an_empty_reason_is_no_end() -> None:
    chunk = {"choices": [{"delta": {"content": "a"}, "finish_reason": ""}]}
    assert "broke off" in lines(ollama_stream([chunk]))[-1]["error"]


def test_nothing_follows_the_end() -> None:
    stream = OllamaStream(shape=Shape.CHAT, model="m", stopwatch=stopwatch())
    for chunk in STREAMS["llama_server_text"]:
        stream.feed(chunk)
    assert lines(stream.finish())[-1]["done"] is True
    assert stream.finish() == b""
    assert stream.feed(STREAMS["llama_server_text"][1]) == b""
    assert stream.fail("Late.") == b""


def test_nothing_follows_a_failure() -> None:
    stream = OllamaStream(shape=Shape.CHAT, model="m", stopwatch=stopwatch())
    assert lines(stream.fail("Busy.")) == [{"error": "Busy."}]
    assert stream.feed(STREAMS["llama_server_text"][1]) == b""
    assert stream.fail("Again.") == b""
    assert stream.finish() == b""


def test_arguments_that_are_no_object_are_an_error_at_the_end() -> None:
    stream = OllamaStream(shape=Shape.CHAT, model="m", stopwatch=stopwatch())
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "[1]"}}
    choice = {"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    assert stream.feed({"choices": [choice]}) == b""
    with pytest.raises(TranslationError, match="called f with arguments") as failed:
        stream.finish()
    assert lines(stream.fail(str(failed.value)))[0]["error"] == str(failed.value)


def test_an_answer_to_a_load_request() -> None:
    chat = load_answer(shape=Shape.CHAT, model="m", stopwatch=stopwatch())
    assert ollama.ChatResponse.model_validate(chat).done_reason == "load"
    assert chat["message"] == {"role": "assistant", "content": ""}
    generate = load_answer(shape=Shape.GENERATE, model="m", stopwatch=stopwatch())
    assert ollama.GenerateResponse.model_validate(generate).response == ""
    assert generate["done"] is True


def test_an_error_has_ollamas_shape() -> None:
    assert error_body("model 'm' not found") == {"error": "model 'm' not found"}


def test_the_models_there_are() -> None:
    found = ollama.ListResponse.model_validate(tags([MODEL])).models
    assert [model.model for model in found] == ["smollm2-135m:latest"]
    assert found[0].modified_at == datetime(2026, 11, 30, tzinfo=UTC)
    assert found[0].size == 98_362_432
    assert found[0].digest == MODEL.digest
    assert found[0].details is not None
    assert found[0].details.quantization_level == "Q4_1"
    assert tags([MODEL])["models"][0]["name"] == "smollm2-135m:latest"


def test_a_name_with_a_tag_keeps_it() -> None:
    named = [ModelInfo(name=name) for name in ("qwen3:4b", "host:80/org/m")]
    assert [entry["model"] for entry in tags(named)["models"]] == [
        "qwen3:4b",
        "host:80/org/m:latest",
    ]


def test_the_models_that_are_loaded() -> None:
    found = ollama.ProcessResponse.model_validate(running([MODEL])).models
    assert [model.model for model in found] == ["smollm2-135m:latest"]
    assert found[0].context_length == 8192
    assert found[0].size_vram == 98_362_432
    assert found[0].expires_at is not None
    assert found[0].expires_at > datetime(2100, 1, 1, tzinfo=UTC)


def test_a_model_that_is_shown() -> None:
    found = ollama.ShowResponse.model_validate(show(MODEL))
    assert found.capabilities == ["completion", "tools"]
    assert found.modelinfo is not None
    assert found.modelinfo["general.architecture"] == "llama"
    assert found.modelinfo["llama.context_length"] == 8192
    assert found.details is not None
    assert found.details.parameter_size == "135M"


def test_a_model_has_every_field_of_the_api() -> None:
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "135M",
        "quantization_level": "Q4_1",
    }
    assert show(MODEL) == {
        "modelfile": "FROM smollm2-135m:latest\n",
        "parameters": "num_ctx 8192",
        "template": "",
        "details": details,
        "model_info": {
            "general.architecture": "llama",
            "llama.context_length": 8192,
            "llama.embedding_length": 576,
        },
        "capabilities": ["completion", "tools"],
        "modified_at": "2026-11-30T00:00:00Z",
    }
    named = {"name": "smollm2-135m:latest", "model": "smollm2-135m:latest"}
    weights = {"size": 98_362_432, "digest": MODEL.digest, "details": details}
    assert tags([MODEL])["models"] == [
        {
            **named,
            **weights,
            "modified_at": "2026-11-30T00:00:00Z",
            "capabilities": ["completion", "tools"],
        }
    ]
    assert running([MODEL])["models"] == [
        {
            **named,
            **weights,
            "expires_at": "9999-12-31T23:59:59Z",
            "size_vram": 98_362_432,
            "context_length": 8192,
        }
    ]


def test_a_model_of_which_little_is_known() -> None:
    model = ModelInfo(name="m")
    assert ollama.ShowResponse.model_validate(show(model)).modelinfo == {
        "general.architecture": "unknown"
    }
    assert show(model)["parameters"] == ""
    assert show(model)["details"]["families"] == []
    assert ollama.ListResponse.model_validate(tags([model])).models[0].model == "m:latest"
    assert ollama.ProcessResponse.model_validate(running([model])).models[0].model == "m:latest"


@pytest.mark.parametrize("body", [{"model": "m:latest"}, {"name": "m"}])
def test_which_model_is_shown(body: dict[str, str]) -> None:
    assert shown_name(body) == "m"


def test_a_model_must_be_named_to_be_shown() -> None:
    with pytest.raises(TranslationError, match="'model' is missing"):
        shown_name({})


def test_the_version_is_the_one_that_is_translated() -> None:
    assert version() == {"version": "0.34.0"}


def test_embeddings_in_the_order_of_the_texts() -> None:
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 1, "embedding": [0.0, 1.0]},
            {"object": "embedding", "index": 0, "embedding": [1.0, 0.0]},
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    found = ollama.EmbedResponse.model_validate(
        embed_answer(answer, model="m", stopwatch=stopwatch())
    )
    assert found.embeddings == [[1.0, 0.0], [0.0, 1.0]]
    assert found.prompt_eval_count == 4
    assert found.model == "m"
    old = ollama.EmbeddingsResponse.model_validate(embeddings_answer(answer))
    assert old.embedding == [1.0, 0.0]


@pytest.mark.parametrize("answer", [{"data": []}, {}, {"data": [{"index": 0}]}])
def test_an_answer_without_an_embedding_is_an_error(answer: dict[str, Any]) -> None:
    with pytest.raises(TranslationError):
        embeddings_answer(answer)
