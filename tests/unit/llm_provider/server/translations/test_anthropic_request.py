from __future__ import annotations

from typing import Any

import pytest

from llm_provider.server.translations.anthropic_request import (
    count_tokens_to_chat,
    messages_to_chat,
    token_count,
)
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.thinking import ThinkingStyle

from .recorded import load

CASES = load("anthropic_requests")
HELLO: dict[str, Any] = {
    "model": "m",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hello"}],
}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def blocks(role: str, *content: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Hello"}, {"role": role, "content": list(content)}]
    }


@pytest.mark.parametrize("name", CASES)
def test_a_request_becomes_a_chat_body(name: str) -> None:
    case = CASES[name]
    translated = messages_to_chat(case["request"])
    assert translated.body == case["chat"]
    assert list(translated.dropped) == case["dropped"]
    assert translated.path == "/v1/chat/completions"


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_counted_of_the_same_prompt(name: str) -> None:
    case = CASES[name]
    prompt = ("model", "messages", "tools", "tool_choice", "chat_template_kwargs")
    counted = count_tokens_to_chat(
        {key: value for key, value in case["request"].items() if key != "max_tokens"}
    ).body
    assert "max_tokens" not in counted
    for key in prompt:
        assert counted.get(key) == case["chat"].get(key)


def test_a_count_of_tokens_has_the_shape_of_the_api() -> None:
    assert token_count(14) == {"input_tokens": 14}


@pytest.mark.parametrize(
    ("thinking", "effort"), [("enabled", "medium"), ("adaptive", "medium"), ("disabled", "none")]
)
def test_thinking_is_told_to_ollama_by_the_effort(thinking: str, effort: str) -> None:
    body = HELLO | {"thinking": {"type": thinking}}
    chat = messages_to_chat(body, ThinkingStyle.EFFORT).body
    assert chat["reasoning_effort"] == effort
    assert "chat_template_kwargs" not in chat


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_tokens": None}, "max_tokens", "is missing"),
    ({"max_tokens": 0}, "max_tokens", "must be 1 or more"),
    ({"max_tokens": 1.5}, "max_tokens", "1.5 is no whole number"),
    ({"max_tokens": True}, "max_tokens", "a boolean. It must be a number"),
    ({"model": ""}, "model", "it is empty"),
    ({"messages": "Hello"}, "messages", "a string. It must be a list"),
    ({"messages": []}, "messages", "no message of a user"),
    ({"messages": ["Hello"]}, "messages.0", "a string. It must be an object"),
    ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role", "'tool'"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "is missing. It must be a list"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content", "it is empty"),
    ({"n": 2}, "n", "not a parameter that this server knows"),
    ({"container": "c"}, "container", "no container"),
    ({"mcp_servers": [{}]}, "mcp_servers", "calls no tools itself"),
    ({"inference_geo": "eu"}, "inference_geo", "computed on this host"),
    ({"temperature": "hot"}, "temperature", "a string. It must be a number"),
    ({"stop_sequences": [1]}, "stop_sequences.0", "a number. It must be a string"),
    ({"stream": "yes"}, "stream", "must be a boolean"),
    ({"metadata": {"user_id": 3}}, "metadata.user_id", "must be a string"),
    ({"system": [{"type": "image"}]}, "system.0", "a block of type 'image' here"),
    ({"system": [{"text": "a"}]}, "system.0.type", "is missing"),
    (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tools.0.type",
        "'web_search_20250305' is a tool of Anthropic's own",
    ),
    ({"tools": [{"name": "f"}]}, "tools.0.input_schema", "is missing. It must be an object"),
    (
        {"tools": [TOOL | {"allowed_callers": ["code_execution_20260120"]}]},
        "tools.0.allowed_callers",
        "no code execution",
    ),
    ({"tool_choice": {"type": "any"}}, "tool_choice", "there are no 'tools'"),
    ({"tools": [TOOL], "tool_choice": {"type": "all"}}, "tool_choice.type", "'all'"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}},
        "tool_choice.name",
        "no tool is named 'g'",
    ),
    ({"thinking": {"type": "always"}}, "thinking.type", "'always'"),
    ({"output_config": {"task_budget": {}}}, "output_config.task_budget", "not supported"),
    ({"output_config": {"effort": "some"}}, "output_config.effort", "'some'. It must be low"),
    ({"output_config": {"format": {"type": "regex"}}}, "output_config.format.type", "'regex'"),
    (
        blocks("user", {"type": "document", "source": {}}),
        "messages.1.content.0",
        "a block of type 'document' in a message of the user. Send its text as a text block.",
    ),
    (
        blocks("user", {"type": "container_upload"}),
        "messages.1.content.0",
        "of the user. There is no container to upload to.",
    ),
    (
        blocks("user", {"type": "search_result"}),
        "messages.1.content.0",
        "of the user. Send its text as a text block.",
    ),
    (
        blocks("user", {"type": "browser_state"}),
        "messages.1.content.0",
        "of the user. Send its text as a text block.",
    ),
    (
        blocks(
            "user",
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]},
        ),
        "messages.1.content.0.content.0",
        "a block of type 'tool_reference' here. Give all tools in 'tools'.",
    ),
    (
        blocks("assistant", {"type": "server_tool_use"}),
        "messages.1.content.0",
        "assistant. Leave it out.",
    ),
    (blocks("user", {"type": "image"}), "messages.1.content.0.source", "must be an object"),
    (blocks("assistant", {"type": "image"}), "messages.1.content.0", "'image'"),
    (blocks("user", {"type": "tool_use"}), "messages.1.content.0", "'tool_use'"),
    (
        blocks("user", {"type": "text", "text": "a", "citations": [{}]}),
        "messages.1.content.0.citations",
        "Leave citations out",
    ),
    (
        blocks("user", {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        "messages.1.content.0.source.type",
        "'file'. Send the image itself",
    ),
    (
        blocks("user", {"type": "tool_result", "content": "1"}),
        "messages.1.content.0.tool_use_id",
        "is missing",
    ),
    (
        blocks(
            "user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document"}]}
        ),
        "messages.1.content.0.content.0",
        "'document' here",
    ),
    (
        blocks("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": "{}"}),
        "messages.1.content.0.input",
        "a string. It must be an object",
    ),
    (
        blocks("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1e999}}),
        "messages.1.content.0.input",
        "cannot be written as JSON",
    ),
]


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({"type": "text"}, "text"),
        ({"type": "image", "source": {"type": "base64"}}, "source.media_type"),
        ({"type": "image", "source": {"type": "base64", "media_type": "a"}}, "source.data"),
        ({"type": "image", "source": {"type": "url"}}, "source.url"),
        ({"type": "thinking"}, "thinking"),
        ({"type": "tool_use", "input": {}}, "id"),
        ({"type": "tool_use", "input": {}, "id": "t"}, "name"),
    ],
)
def test_a_block_must_have_its_fields(block: dict[str, Any], field: str) -> None:
    role = "assistant" if block["type"] in ("thinking", "tool_use") else "user"
    with pytest.raises(TranslationError, match="is missing") as refused:
        messages_to_chat(HELLO | blocks(role, block))
    assert refused.value.param == f"messages.1.content.0.{field}"
    if block["type"] == "text":
        with pytest.raises(TranslationError) as refused:
            messages_to_chat(HELLO | {"system": [block]})
        assert refused.value.param == "system.0.text"


@pytest.mark.parametrize(("change", "param", "words"), REFUSED)
def test_what_cannot_be_translated_is_refused_by_name(
    change: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(TranslationError) as refused:
        messages_to_chat(HELLO | change)
    assert refused.value.param == param
    assert str(refused.value).startswith(f"'{param}' is")
    assert words in str(refused.value)


def test_a_choice_of_no_tool_needs_no_tools() -> None:
    assert "tool_choice" not in messages_to_chat(HELLO | {"tool_choice": {"type": "none"}}).body


def test_texts_of_a_user_stay_apart_and_one_is_a_string() -> None:
    one, two = {"type": "text", "text": "a"}, {"type": "text", "text": "b"}
    messages = [{"role": "user", "content": [one]}, {"role": "user", "content": [one, two]}]
    chat = messages_to_chat(HELLO | {"messages": messages}).body
    assert [message["content"] for message in chat["messages"]] == ["a", [one, two]]


def test_an_assistant_may_have_said_nothing() -> None:
    messages = [*HELLO["messages"], {"role": "assistant", "content": []}, *HELLO["messages"]]
    chat = messages_to_chat(HELLO | {"messages": messages}).body
    assert chat["messages"][1] == {"role": "assistant", "content": ""}


def test_a_request_is_not_changed() -> None:
    case = load("anthropic_requests")["tool_results"]["request"]
    messages_to_chat(case)
    assert case == CASES["tool_results"]["request"]
