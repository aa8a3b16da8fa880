"""What an engine has other words for is rewritten; what changes the answer is refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_provider import VLLM, EngineRefusedError, LlamaCpp, Ollama
from llm_provider.errors import Unsupported
from llm_provider.providers.routes import CHAT, COMPLETIONS, RESPONSES

from ..fake import CONTEXT, MODEL, FakeEngine

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES, "model": "ignored"}


@pytest.fixture
async def ollama() -> AsyncIterator[tuple[FakeEngine, Ollama]]:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url, timeout=60) as llm,
    ):
        yield engine, llm


def offering(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def naming(name: str) -> dict[str, Any]:
    return {"tool_choice": offering(name)}


# What Ollama does its own way.


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": None, "max_tokens": 9}, {"max_tokens": 9}),
        ({"tools": [1], "tool_choice": "auto"}, {"tools": [1]}),
        ({"tools": [1], "tool_choice": None}, {"tools": [1]}),
        ({"tools": [1], "tool_choice": "none"}, {}),
        ({"tools": [1], "tool_choice": "required"}, {"tools": [1]}),
        ({"tools": [offering("a"), offering("b")]} | naming("b"), {"tools": [offering("b")]}),
        ({"parallel_tool_calls": False, "prediction": {"type": "content"}}, {}),
        ({"n": 1, "logit_bias": {}, "parallel_tool_calls": True}, {"n": 1, "logit_bias": {},
          "parallel_tool_calls": True}),
        ({"modalities": ["text"], "grammar": ""}, {"modalities": ["text"], "grammar": ""}),
        ({"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
    ],
)  # fmt: skip
async def test_what_ollama_is_sent(
    ollama: tuple[FakeEngine, Ollama], asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    engine, llm = ollama
    given = BODY | asked
    before = repr(given)
    await llm.chat(given)
    always = {"messages": MESSAGES, "model": MODEL, "stream": False, "max_tokens": CONTEXT}
    assert engine.asked == [always | sent]
    assert repr(given) == before  # the caller's own is left alone


@pytest.mark.parametrize(
    ("param", "asked", "found"),
    [
        ("tool_choice.type", {"tool_choice": {"type": "allowed_tools"}}, '"allowed_tools"'),
        ("top_logprobs", {"top_logprobs": 3}, "3"),
        ("n", {"n": 2}, "2"),
        ("logit_bias", {"logit_bias": {"5": 1}}, '{"5": 1}'),
        ("functions", {"functions": [1]}, "[1]"),
        ("modalities", {"modalities": ["audio"]}, '["audio"]'),
        ("audio", {"audio": {"voice": "x"}}, '{"voice": "x"}'),
        ("top_k", {"top_k": 40}, "40"),
        ("min_p", {"min_p": 0.05}, "0.05"),
        ("repeat_penalty", {"repeat_penalty": 1.1}, "1.1"),
        ("ignore_eos", {"ignore_eos": True}, "true"),
        ("grammar", {"grammar": "root ::= x"}, '"root ::= x"'),
    ],
)
async def test_what_ollama_cannot_do_is_said(
    ollama: tuple[FakeEngine, Ollama], param: str, asked: dict[str, Any], found: str
) -> None:
    engine, llm = ollama
    words = f"'{param}' does not fit ollama: {found} would be ignored, which changes the answer."
    for ask in (llm.chat(BODY | asked), anext(llm.stream(BODY | asked))):
        with pytest.raises(Unsupported, match=re.escape(words)) as caught:
            await ask
        assert caught.value.param == param
    assert engine.requests == []


@pytest.mark.parametrize(
    ("param", "value"), [("n", 2), ("best_of", 2), ("echo", True), ("logprobs", 1), ("top_k", 1)]
)
async def test_what_ollamas_completions_cannot_do(
    ollama: tuple[FakeEngine, Ollama], param: str, value: object
) -> None:
    engine, llm = ollama
    with pytest.raises(Unsupported) as caught:
        await llm.send(COMPLETIONS, {"prompt": "Hello", param: value})
    assert caught.value.param == param
    await llm.send(COMPLETIONS, {"prompt": "Hello", "echo": False, "best_of": 1, "n": 1})
    assert engine.paths().count(COMPLETIONS) == 1


async def test_others_get_what_ollama_could_not_do(engine: FakeEngine, llm: LlamaCpp) -> None:
    asked = {"n": 2, "top_k": 3, "tool_choice": "required", "max_completion_tokens": 7}
    await llm.chat(BODY | asked)
    assert engine.asked == [BODY | asked | {"model": MODEL, "stream": False}]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_a_named_function_is_the_only_one_that_llamacpp_is_offered(
    engine: FakeEngine, llm: LlamaCpp, path: str
) -> None:
    """It reads a name as `auto`."""
    tools = [offering(name) for name in "ab"]
    choice = naming("b")
    if path == RESPONSES:
        tools = [{"type": "function", "name": name} for name in "ab"]
        choice = {"tool_choice": {"type": "function", "name": "b"}}
    await llm.send(path, {"tools": tools} | choice)
    (sent,) = [request.body for request in engine.posts]
    assert (sent["tools"], sent["tool_choice"]) == ([tools[1]], "required")


@pytest.mark.parametrize("tools", [[offering("a"), {"type": "custom"}, 5], [], None])
async def test_a_function_that_is_not_offered_cannot_be_chosen(
    ollama: tuple[FakeEngine, Ollama], tools: object
) -> None:
    words = "'tool_choice' names the function 'b', which 'tools' does not have: it has "
    with pytest.raises(Unsupported, match=words + ("a, None" if tools else "none")) as caught:
        await ollama[1].chat(BODY | naming("b") | {"tools": tools})
    assert str(caught.value).endswith(". Name one of 'tools'.")
    assert caught.value.param == "tool_choice"
    assert ollama[0].requests == []


async def test_what_vllm_cannot_do_is_said_and_its_parts_are_one_text() -> None:
    async with (
        FakeEngine("vllm").serving() as engine,
        VLLM(model=MODEL, base_url=engine.url) as llm,
    ):
        for param, value in (
            ("functions", [1]),
            ("repeat_penalty", 1.1),
            ("audio", {"voice": "x"}),
        ):
            with pytest.raises(Unsupported, match=f"'{param}' does not fit vllm: ") as caught:
                await llm.chat(BODY | {param: value})
            assert caught.value.param == param
        assert engine.requests == []
        parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
        await llm.chat(BODY | {"messages": [{"role": "user", "content": parts}], "n": 2})
        asked = {"messages": [{"role": "user", "content": "Hello"}], "n": 2}
        assert engine.asked == [BODY | asked | {"model": MODEL, "stream": False}]


async def test_a_refusal_that_comes_after_the_200(engine: FakeEngine, llm: LlamaCpp) -> None:
    """As vLLM says that a schema cannot be: before its stream's first word, and ended properly."""
    error = {"message": "Invalid type", "type": "BadRequestError", "param": None, "code": 400}
    first = (
        b'data: {"error": {"message": "Invalid type", "type": "BadRequestError", '
        b'"param": null, "code": 400}}\n\n'
    )
    engine.on(CHAT, lambda x: x.stream(first, b"data: [DONE]\n\n"))
    for ask in (anext(llm.stream(BODY)), anext(llm.raw_stream(CHAT, BODY))):
        with pytest.raises(
            EngineRefusedError, match="refused with status 400: Invalid type"
        ) as caught:
            await ask
        assert (caught.value.status, caught.value.error) == (400, error)


async def test_ollama_is_told_to_stop_at_the_contexts_end(
    ollama: tuple[FakeEngine, Ollama],
) -> None:
    """It would shift its context and go on, to ten times that."""
    engine, llm = ollama
    await llm.load()
    await llm.ready()
    await llm.chat(BODY)
    await llm.chat(BODY | {"max_tokens": None})
    await llm.chat(BODY | {"max_tokens": 5})
    assert [body["max_tokens"] for body in engine.asked] == [CONTEXT, CONTEXT, 5]


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([], ""),
        ("a", "a"),
        (None, None),
        ([{"type": "text", "text": 1}], [{"type": "text", "text": 1}]),
        ([{"type": "image_url"}, {"type": "text", "text": "b"}],) * 2,
    ],
)
async def test_ollama_gets_one_message_for_one(
    ollama: tuple[FakeEngine, Ollama], content: object, sent: object
) -> None:
    engine, llm = ollama
    await llm.chat({"messages": [{"role": "tool", "tool_call_id": "1", "content": content}]})
    assert engine.asked[0]["messages"] == [{"role": "tool", "tool_call_id": "1", "content": sent}]
