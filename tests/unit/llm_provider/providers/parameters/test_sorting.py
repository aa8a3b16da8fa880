"""What becomes of single fields, by engine, in both modes; the messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_provider.providers.encoded_body import EncodedBody
from llm_provider.providers.parameters.rules import UNREAD
from llm_provider.providers.parameters.sorting import (
    MOST_DECODED_BYTES,
    Refusal,
    Sorted,
    shown,
    sort_fields,
)
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

ABOUT: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    COMPLETIONS: {"prompt": "Hello"},
    RESPONSES: {"input": "Hello"},
    EMBEDDINGS: {"input": "Hello"},
}
LOGPROBS = "message.output_text.logprobs"
FUNCTION = {"type": "function", "function": {"name": "get_weather"}}
SCHEMA = {"type": "json_schema", "schema": {}}


def sort(engine: str, route: str, asked: dict[str, Any], *, strict: bool) -> Sorted:
    return sort_fields(engine, route, ABOUT[route] | asked, strict)


# Done, whatever the mode.


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("engine", "route", "asked"),
    [
        ("llamacpp", CHAT, {"n": 2, "logit_bias": {"5": 1}, "seed": 5, "min_p": 0.1}),
        ("llamacpp", CHAT, {"tool_choice": "required", "parallel_tool_calls": False}),
        ("llamacpp", CHAT, {"tool_choice": FUNCTION, "tools": [FUNCTION]}),
        ("llamacpp", CHAT, {"cache_prompt": True, "id_slot": 1, "chat_template_kwargs": {"a": 1}}),
        ("llamacpp", CHAT, {"stream_options": {"include_usage": True}, "logprobs": True}),
        ("llamacpp", RESPONSES, {"text": {"format": {"type": "text"}}, "truncation": "disabled"}),
        ("llamacpp", RESPONSES, {"tools": [{"type": "function"}], "store": False}),
        ("llamacpp", RESPONSES, {"previous_response_id": "resp_1"}),  # refuses it itself
        ("llamacpp", EMBEDDINGS, {"encoding_format": "base64", "embd_normalize": 2}),
        ("ollama", CHAT, {"n": 1, "logit_bias": {}, "parallel_tool_calls": True, "min_p": 0}),
        ("ollama", CHAT, {"modalities": ["text"], "grammar": "", "function_call": "none"}),
        ("ollama", CHAT, {"max_completion_tokens": 5, "reasoning_effort": "low"}),
        ("ollama", CHAT, {"top_logprobs": 3, "logprobs": True}),
        ("ollama", CHAT, {"top_logprobs": 0, "store": False, "service_tier": "auto"}),
        ("ollama", CHAT, {"tool_choice": "none"}),
        ("ollama", CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}}),
        ("ollama", CHAT, {"logit_bias": None, "user": None, "web_search_options": None}),
        ("ollama", COMPLETIONS, {"best_of": 1, "echo": False, "n": 1, "suffix": "x", "top_p": 0.5}),
        ("ollama", RESPONSES, {"text": {"format": SCHEMA}, "truncation": "auto"}),
        ("ollama", EMBEDDINGS, {"dimensions": 8}),
        ("vllm", CHAT, {"n": 2, "tool_choice": FUNCTION, "parallel_tool_calls": False}),
        ("vllm", CHAT, {"top_k": 1, "structured_outputs": {"regex": "x"}, "repeat_penalty": 1}),
        ("vllm", COMPLETIONS, {"echo": True, "suffix": "x", "best_of": 1}),
        ("vllm", RESPONSES, {"include": [LOGPROBS], "top_logprobs": 2, "metadata": {"a": "b"}}),
        ("vllm", RESPONSES, {"tool_choice": {"type": "function", "name": "x"}, "text": SCHEMA}),
        ("vllm", EMBEDDINGS, {"dimensions": 8, "truncate_prompt_tokens": 5}),
    ],
)
def test_what_an_engine_does_is_kept(
    engine: str, route: str, asked: dict[str, Any], strict: bool
) -> None:
    assert sort(engine, route, asked, strict=strict) == Sorted((*ABOUT[route], *asked))


# Ignored without harm: dropped, or refused in strict mode.


@pytest.mark.parametrize(
    ("engine", "route", "param", "value"),
    [
        ("ollama", CHAT, "parallel_tool_calls", False),
        ("ollama", CHAT, "tool_choice", "required"),
        ("ollama", CHAT, "tool_choice", FUNCTION),
        ("ollama", RESPONSES, "tool_choice", "required"),
        ("ollama", RESPONSES, "metadata", {"a": "b"}),
        ("llamacpp", CHAT, "metadata", {"a": "b"}),
        ("llamacpp", CHAT, "store", True),
        ("llamacpp", CHAT, "service_tier", "flex"),
        ("llamacpp", CHAT, "prediction", {"type": "content", "content": "x"}),
        ("llamacpp", RESPONSES, "truncation", "auto"),
        ("llamacpp", RESPONSES, "max_tool_calls", 3),
        ("vllm", CHAT, "user", "me"),
        ("vllm", CHAT, "safety_identifier", "me"),
        ("vllm", CHAT, "verbosity", "low"),
        ("vllm", CHAT, "prompt_cache_key", "x"),
        ("vllm", COMPLETIONS, "user", "me"),
        ("vllm", RESPONSES, "context_management", [{"type": "compaction"}]),
        ("ollama", EMBEDDINGS, "user", "me"),
    ],
)
def test_what_is_ignored_without_harm(engine: str, route: str, param: str, value: Any) -> None:
    asked = {"temperature": 0, param: value} if route != EMBEDDINGS else {param: value}
    kept = tuple(name for name in (*ABOUT[route], *asked) if name != param)
    assert sort(engine, route, asked, strict=False) == Sorted(kept, (param,))
    message = (
        f"'{param}' does not fit {engine}: {json.dumps(value)} would be ignored, "
        "which strict mode refuses. Leave it out."
    )
    refused = sort(engine, route, asked, strict=True)
    assert refused == Sorted((*ABOUT[route], *asked), refusal=Refusal(param, message))


@pytest.mark.parametrize(
    ("engine", "asked", "path", "found"),
    [
        ("ollama", {"text": {"format": SCHEMA, "verbosity": "low"}}, "text.verbosity", '"low"'),
        ("vllm", {"reasoning": {"summary": "auto"}}, "reasoning.summary", '"auto"'),
        (
            "llamacpp",
            {"tools": [{"type": "function"}, {"type": "web_search"}]},
            "tools[].type",
            '"web_search"',
        ),
        (
            "ollama",
            {"include": ["reasoning.encrypted_content"]},
            "include[]",
            '"reasoning.encrypted_content"',
        ),
        (
            "vllm",
            {"stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "true",
        ),
    ],
)  # fmt: skip
def test_a_member_of_a_field_is_named_and_stays(
    engine: str, asked: dict[str, Any], path: str, found: str
) -> None:
    assert sort(engine, RESPONSES, asked, strict=False) == Sorted(("input", *asked), (path,))
    refused = sort(engine, RESPONSES, asked, strict=True).refusal
    assert refused == Refusal(
        path,
        f"'{path}' does not fit {engine}: {found} would be ignored, which strict mode refuses. "
        "Leave it out.",
    )


def test_several_are_named_in_the_order_of_the_table() -> None:
    asked = {"verbosity": "low", "user": "me", "parallel_tool_calls": False}
    assert sort("ollama", CHAT, asked, strict=False) == Sorted(
        ("messages",), ("parallel_tool_calls", "user", "verbosity")
    )


# Ignored, and the answer would be another: refused in both modes.

BOTH = "Leave it out, or use llamacpp or vllm."
ONLY = "Leave it out, or use {}."
NONE = "Leave it out."


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("engine", "route", "asked", "found", "advice"),
    [
        ("ollama", CHAT, {"n": 2}, "2", BOTH),
        ("ollama", CHAT, {"n": 0}, "0", BOTH),
        ("ollama", CHAT, {"logit_bias": {"5": 1}}, '{"5": 1}', BOTH),
        ("ollama", CHAT, {"top_k": 40}, "40", BOTH),
        ("ollama", CHAT, {"grammar": "root ::= x"}, '"root ::= x"', ONLY.format("llamacpp")),
        ("ollama", CHAT, {"functions": [{"name": "f"}]}, '[{"name": "f"}]', NONE),
        ("ollama", CHAT, {"function_call": {"name": "f"}}, '{"name": "f"}', NONE),
        ("ollama", CHAT, {"modalities": ["text", "audio"]}, '["text", "audio"]', NONE),
        ("ollama", CHAT, {"audio": {"voice": "x"}}, '{"voice": "x"}', NONE),
        ("ollama", CHAT, {"moderation": {"model": "m"}}, '{"model": "m"}', NONE),
        (
            "ollama",
            CHAT,
            {"top_logprobs": 3},
            "3",
            "Leave it out, or set 'logprobs'.",
        ),
        ("ollama", COMPLETIONS, {"logprobs": 1}, "1", BOTH),
        ("ollama", COMPLETIONS, {"echo": True}, "true", ONLY.format("vllm")),
        ("ollama", COMPLETIONS, {"best_of": 2}, "2", NONE),
        ("ollama", COMPLETIONS, {"top_p": 0}, "0", BOTH),
        ("ollama", RESPONSES, {"truncation": "disabled"}, '"disabled"', BOTH),
        ("ollama", RESPONSES, {"previous_response_id": "r"}, '"r"', BOTH),
        ("ollama", RESPONSES, {"conversation": "c"}, '"c"', NONE),
        ("llamacpp", CHAT, {"functions": [{"name": "f"}]}, '[{"name": "f"}]', NONE),
        ("llamacpp", CHAT, {"repetition_penalty": 1.1}, "1.1", ONLY.format("vllm")),
        ("llamacpp", CHAT, {"web_search_options": {}}, "{}", NONE),
        ("llamacpp", COMPLETIONS, {"suffix": "x"}, '"x"', ONLY.format("ollama or vllm")),
        ("llamacpp", RESPONSES, {"background": True}, "true", ONLY.format("vllm")),
        ("llamacpp", RESPONSES, {"prompt": {"id": "p"}}, '{"id": "p"}', ONLY.format("vllm")),
        ("llamacpp", EMBEDDINGS, {"dimensions": 8}, "8", ONLY.format("ollama or vllm")),
        ("vllm", CHAT, {"repeat_penalty": 1.1}, "1.1", ONLY.format("llamacpp")),
        ("vllm", CHAT, {"guided_json": {"type": "object"}}, '{"type": "object"}', NONE),
        ("vllm", COMPLETIONS, {"max_completion_tokens": 9}, "9", ONLY.format("llamacpp or ollama")),
    ],
)  # fmt: skip
def test_what_changes_the_answer_is_refused(
    engine: str, route: str, asked: dict[str, Any], found: str, advice: str, strict: bool
) -> None:
    (param,) = asked
    # Beside what would be dropped: nothing is sent.
    result = sort(engine, route, asked | {"user": "me"}, strict=strict)
    assert result.refusal == Refusal(
        param,
        f"'{param}' does not fit {engine}: {found} would be ignored, "
        f"which changes the answer. {advice}",
    )
    assert result.dropped == ()


@pytest.mark.parametrize(
    ("engine", "route", "asked", "path"),
    [
        ("llamacpp", RESPONSES, {"text": {"format": SCHEMA}}, "text.format.type"),
        ("ollama", RESPONSES, {"text": {"format": {"type": "json_object"}}}, "text.format.type"),
        ("ollama", CHAT, {"response_format": {"type": "grammar"}}, "response_format.type"),
        ("ollama", CHAT, {"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ("llamacpp", CHAT, {"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ("vllm", RESPONSES, {"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ("ollama", RESPONSES, {"include": ["x", LOGPROBS]}, "include[]"),
        ("llamacpp", COMPLETIONS, {"response_format": {"type": "json_object"}},
         "response_format.type"),
    ],
)  # fmt: skip
def test_a_member_of_a_field_can_change_the_answer(
    engine: str, route: str, asked: dict[str, Any], path: str
) -> None:
    refused = sort(engine, route, asked, strict=False).refusal
    assert refused is not None
    assert refused.param == path


# Unknown fields.


@pytest.mark.parametrize("engine", ["llamacpp", "ollama", "vllm"])
def test_an_unknown_field_is_kept_unless_in_strict_mode(engine: str) -> None:
    asked = {"temprature": 1}
    assert sort(engine, CHAT, asked, strict=False) == Sorted(("messages", "temprature"))
    assert sort(engine, CHAT, asked, strict=True).refusal == Refusal(
        "temprature",
        f"'temprature' is unknown: {engine} would ignore it on /v1/chat/completions, which strict "
        "mode refuses. Correct its name, or leave it out.",
    )
    assert sort(engine, CHAT, {"temprature": None}, strict=True).refusal is None


def test_an_extension_is_known_to_its_engine_alone() -> None:
    asked = {"cache_prompt": True}
    assert sort("llamacpp", CHAT, asked, strict=True).refusal is None
    refused = sort("vllm", CHAT, asked, strict=True).refusal
    assert refused is not None
    assert refused.param == "cache_prompt"


@pytest.mark.parametrize(("engine", "route"), [("ollama", "/v1/messages"), ("the chat API", CHAT)])
def test_without_a_table_everything_is_kept(engine: str, route: str) -> None:
    assert sort_fields(engine, route, {"n": 2, "x": 1}, strict=True) == Sorted(("n", "x"))


def test_a_long_name_is_shortened() -> None:
    refused = sort("ollama", CHAT, {"x" * 5000: 1}, strict=True).refusal
    assert refused is not None
    assert len(refused.message) < 300


# Values that are not decoded.


def encoded(**fields: Any) -> EncodedBody:
    return EncodedBody({name: json.dumps(value).encode() for name, value in fields.items()})


def test_messages_are_never_decoded() -> None:
    body = EncodedBody({"messages": b"not JSON", "tools": b"no", "user": b'"me"', "min_p": b"0.5"})
    assert sort_fields("llamacpp", CHAT, body, strict=False) == Sorted(
        ("messages", "tools", "min_p"), ("user",)
    )


def test_a_large_value_is_not_decoded() -> None:
    large = b"x" * (MOST_DECODED_BYTES + 1)  # no JSON: decoding it would fail
    body = EncodedBody({"input": b'"Hello"', "prediction": large, "text": large})
    assert sort_fields("ollama", CHAT, body, strict=False).dropped == ("prediction",)
    assert sort_fields("ollama", RESPONSES, body, strict=False).kept == (
        "input", "prediction", "text"
    )  # fmt: skip
    refused = sort_fields("ollama", CHAT, EncodedBody({"logit_bias": large}), strict=False).refusal
    assert refused is not None
    assert "'logit_bias' does not fit ollama: \"...\" would be ignored" in refused.message


@pytest.mark.parametrize("depth", [900, 1100, 50_000])
def test_a_deep_value_is_no_defect(depth: int) -> None:
    deep = b"[" * depth + b"1" + b"]" * depth
    body = EncodedBody({"metadata": deep, "tool_choice": deep, "n": b"1"})
    assert sort_fields("ollama", CHAT, body, strict=False).dropped == ("tool_choice", "metadata")
    assert sort_fields("ollama", CHAT, body, strict=True).refusal is not None


def test_a_value_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    decode = EncodedBody.__getitem__

    def reading(body: EncodedBody, name: str) -> Any:
        read.append(name)
        return decode(body, name)

    monkeypatch.setattr(EncodedBody, "__getitem__", reading)
    body = encoded(input="Hello", tool_choice="auto", reasoning={"effort": "low"}, text={})
    sort_fields("ollama", RESPONSES, body, strict=True)
    assert sorted(read) == ["reasoning", "text", "tool_choice"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("Zürich", '"Zürich"'),
        (1.5, "1.5"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, 4]"),
        ({"a": {"b": {"c": {"d": 1}}}}, '{"a": {"b": {"c": "..."}}}'),
        (UNREAD, '"..."'),
        ("x" * 1000, '"' + 59 * "x" + "..."),
        (object, "\"<class 'object'>\""),
        ("\ud800", '"?"'),
    ],
)
def test_values_in_messages(value: object, text: str) -> None:
    assert shown(value) == text
