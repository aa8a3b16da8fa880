from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.ollama_embed import (
    embed_to_embeddings,
    embeddings_to_embeddings,
)
from llm_provider.server.translations.ollama_request import (
    bare_name,
    chat_to_chat,
    generate_to_chat,
    is_load_request,
)
from llm_provider.server.translations.openai_format import Translated
from llm_provider.server.translations.thinking import ThinkingStyle

from .recorded import load

CASES = load("ollama_requests")
ROUTES: dict[str, Callable[..., Translated]] = {
    "/api/chat": chat_to_chat,
    "/api/generate": generate_to_chat,
    "/api/embed": embed_to_embeddings,
    "/api/embeddings": embeddings_to_embeddings,
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
PROMPT = {"model": "m", "prompt": "Hello"}


@pytest.mark.parametrize("name", CASES)
def test_a_request_becomes_an_openai_body(name: str) -> None:
    case = CASES[name]
    before = json.dumps(case)
    translated = ROUTES[case["path"]](case["request"])
    assert translated.body == case["body"]
    assert list(translated.dropped) == case["dropped"]
    assert translated.path == case.get("to", "/v1/chat/completions")
    assert json.dumps(case) == before


@pytest.mark.parametrize(
    ("think", "effort"), [(True, "medium"), (False, "none"), ("low", "low"), ("max", "high")]
)
def test_thinking_is_told_to_ollama_by_the_effort(think: bool | str, effort: str) -> None:
    chat = chat_to_chat(CHAT | {"think": think}, ThinkingStyle.EFFORT).body
    assert chat["reasoning_effort"] == effort
    assert "chat_template_kwargs" not in chat


@pytest.mark.parametrize(("asked", "sent"), [(5, 5), (0, 0), (-1, None), (-2, None)])
def test_how_many_tokens_are_predicted(asked: int, sent: int | None) -> None:
    chat = chat_to_chat(CHAT | {"options": {"num_predict": asked}})
    assert chat.body.get("max_tokens") == sent
    assert chat.dropped == ()


def test_without_think_the_model_decides() -> None:
    chat = chat_to_chat(CHAT).body
    assert chat.keys() == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("begin", "kind"),
    [("iVBORw0KGgoAA", "png"), ("/9j/4AAQ", "jpeg"), ("R0lGODlh", "gif"), ("UklGRh4A", "webp")],
)
def test_the_kind_of_an_image_is_in_its_first_bytes(begin: str, kind: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "", "images": [begin]}]}
    parts = chat_to_chat(body).body["messages"][0]["content"]
    assert parts == [
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{begin}"}}
    ]


def test_an_image_with_its_kind_stays_as_it_is() -> None:
    image = "data:image/bmp;base64,Qk0="
    parts = generate_to_chat(PROMPT | {"images": [image]}).body["messages"][0]["content"]
    assert parts[0]["image_url"]["url"] == image


def test_a_tool_of_ollama_python_has_a_schema_that_engines_read() -> None:
    function = {
        "name": "add",
        "parameters": {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "integer, string", "description": ""}},
        },
    }
    bare = {"name": "now"}
    tools = chat_to_chat(CHAT | {"tools": [{"function": function}, {"function": bare}]}).body[
        "tools"
    ]
    assert tools[0]["type"] == "function"
    assert tools[0]["function"]["parameters"]["properties"]["a"]["type"] == ["integer", "string"]
    assert tools[0]["function"]["parameters"]["required"] == ["a"]
    assert tools[1]["function"]["parameters"] == {"type": "object", "properties": {}}


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("/api/chat", {"model": None}, "model", "is missing"),
    ("/api/chat", {"messages": None}, "messages", "is missing"),
    ("/api/chat", {"messages": []}, "messages", "it is empty"),
    ("/api/chat", {"messages": [{"content": "a"}]}, "messages.0.role", "is missing"),
    ("/api/chat", {"messages": [{"role": "me"}]}, "messages.0.role", "'me'. It must be system"),
    (
        "/api/chat",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages.0.content",
        "a list. It must be a string",
    ),
    (
        "/api/chat",
        {"messages": [{"role": "user", "images": [3]}]},
        "messages.0.images.0",
        "a number. It must be a string",
    ),
    (
        "/api/chat",
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}]},
        "messages.0.tool_calls.0.function.name",
        "it is empty",
    ),
    (
        "/api/chat",
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                }
            ]
        },
        "messages.0.tool_calls.0.function.arguments",
        "a string. It must be an object",
    ),
    (
        "/api/chat",
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        "messages.0.tool_calls.0.function",
        "is missing",
    ),
    (
        "/api/chat",
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1e999}}}],
                }
            ]
        },
        "messages.0.tool_calls.0.function.arguments",
        "it cannot be written as JSON",
    ),
    (
        "/api/chat",
        {"messages": [{"role": "tool", "content": "", "tool_call_id": 3}]},
        "messages.0.tool_call_id",
        "must be a string",
    ),
    (
        "/api/chat",
        {"messages": [{"role": "assistant", "thinking": 3}]},
        "messages.0.thinking",
        "must be a string",
    ),
    ("/api/chat", {"tools": [{"function": {}}]}, "tools.0.function.name", "is missing"),
    (
        "/api/chat",
        {"tools": [{"function": {"name": "f", "description": 3}}]},
        "tools.0.function.description",
        "must be a string",
    ),
    (
        "/api/chat",
        {"tools": [{"function": {"name": "f", "parameters": "{}"}}]},
        "tools.0.function.parameters",
        "must be an object",
    ),
    (
        "/api/chat",
        {"tools": [{"function": {"name": "f", "parameters": {"properties": ["a"]}}}]},
        "tools.0.function.parameters.properties",
        "must be an object",
    ),
    (
        "/api/chat",
        {"tools": [{"function": {"name": "f", "parameters": {"required": "a"}}}]},
        "tools.0.function.parameters.required",
        "must be a list",
    ),
    ("/api/chat", {"tools": [{"type": "function"}]}, "tools.0.function", "is missing"),
    ("/api/chat", {"format": "yaml"}, "format", "'yaml'. It must be \"json\" or a JSON schema"),
    ("/api/chat", {"think": "deeply"}, "think", "'deeply'. It must be true, false, low"),
    ("/api/chat", {"stream": 1}, "stream", "must be a boolean"),
    ("/api/chat", {"options": []}, "options", "must be an object"),
    ("/api/chat", {"options": {"temperature": "0"}}, "options.temperature", "must be a number"),
    ("/api/chat", {"options": {"seed": 1.5}}, "options.seed", "1.5 is no whole number"),
    ("/api/chat", {"options": {"seed": float("inf")}}, "options.seed", "inf is no whole number"),
    ("/api/chat", {"options": {"stop": [None]}}, "options.stop.0", "must be a string"),
    (
        "/api/chat",
        {"template": "{{ .Prompt }}"},
        "template",
        "'raw' with a prompt that is complete.",
    ),
    (
        "/api/generate",
        {"suffix": "end"},
        "suffix",
        "supported: send a text with a gap to /infill, where the engine offers it.",
    ),
    (
        "/api/generate",
        {"context": [1, 2]},
        "context",
        "supported: send the conversation as messages to /api/chat.",
    ),
    ("/api/generate", {"width": 512}, "width", "supported: no images are generated."),
    ("/api/generate", {"height": 512}, "height", "supported: no images are generated."),
    ("/api/generate", {"steps": 4}, "steps", "supported: no images are generated."),
    (
        "/api/chat",
        {"_debug_render_only": True},
        "_debug_render_only",
        "supported: send the messages to /apply-template, where the engine offers it.",
    ),
    ("/api/generate", {"prompt": 3}, "prompt", "must be a string"),
    ("/api/generate", {"raw": True, "system": "a"}, "system", "not supported beside 'raw'"),
    ("/api/generate", {"raw": True, "template": "a"}, "template", "not supported beside 'raw'"),
    ("/api/generate", {"raw": True, "images": ["a"]}, "images", "not supported beside 'raw'"),
    ("/api/generate", {"raw": True, "format": "json"}, "format", "not supported beside 'raw'"),
    ("/api/generate", {"raw": True, "think": True}, "think", "not supported beside 'raw'"),
    ("/api/generate", {"raw": True, "logprobs": True}, "logprobs", "not supported beside 'raw'"),
    ("/api/embed", {"input": None}, "input", "is missing"),
    ("/api/embed", {"input": []}, "input", "it is empty"),
    ("/api/embed", {"input": ["a", ""]}, "input", "it is empty"),
    ("/api/embed", {"input": ["a", 3]}, "input.1", "must be a string"),
    ("/api/embed", {"input": "a", "dimensions": "3"}, "dimensions", "must be a number"),
    ("/api/embeddings", {"prompt": ""}, "prompt", "it is empty"),
]


@pytest.mark.parametrize(("path", "change", "param", "words"), REFUSED)
def test_what_cannot_be_translated_is_refused_by_name(
    path: str, change: dict[str, Any], param: str, words: str
) -> None:
    whole = CHAT if path == "/api/chat" else PROMPT
    with pytest.raises(TranslationError) as refused:
        ROUTES[path](whole | change)
    assert refused.value.param == param
    assert str(refused.value).startswith(f"'{param}' is")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("body", "loads"),
    [
        ({"model": "m"}, True),
        ({"model": "m", "messages": [], "keep_alive": -1}, True),
        ({"model": "m", "prompt": "", "keep_alive": "10m"}, True),
        (CHAT, False),
        (PROMPT, False),
        (PROMPT | {"keep_alive": 0}, False),
        ({"model": "m", "prompt": "", "images": ["iVBORw0KGgo"]}, False),
    ],
)
def test_a_request_without_a_prompt_loads_the_model(body: dict[str, Any], loads: bool) -> None:
    assert is_load_request(body) is loads


@pytest.mark.parametrize("keep_alive", [0, "0", "0s"])
def test_a_model_cannot_be_unloaded(keep_alive: object) -> None:
    with pytest.raises(TranslationError, match="the model stays loaded") as refused:
        is_load_request({"model": "m", "keep_alive": keep_alive})
    assert refused.value.param == "keep_alive"


@pytest.mark.parametrize(
    ("asked", "dropped"),
    [
        ({"keep_alive": -1}, ()),
        ({"keep_alive": "-1m"}, ()),
        ({"keep_alive": 0}, ("keep_alive",)),
        ({"keep_alive": "5m"}, ("keep_alive",)),
        ({"truncate": False, "shift": False, "unknown": None}, ()),
        ({"truncate": True, "unknown": 3}, ("truncate", "unknown")),
    ],
)
def test_what_asks_for_something_else_is_named(
    asked: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    assert chat_to_chat(CHAT | asked).dropped == dropped


@pytest.mark.parametrize(
    ("name", "bare"), [("m:latest", "m"), ("m", "m"), ("qwen3:4b", "qwen3:4b"), ("a/m", "a/m")]
)
def test_the_tag_latest_is_no_part_of_a_name(name: str, bare: str) -> None:
    assert bare_name(name) == bare
    assert chat_to_chat(CHAT | {"model": name}).body["model"] == bare


def test_texts_to_embed() -> None:
    body = {
        "model": "m:latest",
        "input": ["a", "b"],
        "dimensions": 64,
        "truncate": True,
        "options": {"num_ctx": 512},
        "keep_alive": "5m",
    }
    translated = embed_to_embeddings(body)
    assert translated.path == "/v1/embeddings"
    assert translated.body == {
        "model": "m",
        "input": ["a", "b"],
        "encoding_format": "float",
        "dimensions": 64,
    }
    assert translated.dropped == ("truncate", "keep_alive", "options.num_ctx")


def test_one_text_to_embed_by_either_route() -> None:
    expected = {"model": "m", "input": ["a"], "encoding_format": "float"}
    assert embed_to_embeddings({"model": "m", "input": "a"}).body == expected
    assert embeddings_to_embeddings({"model": "m", "prompt": "a"}).body == expected
