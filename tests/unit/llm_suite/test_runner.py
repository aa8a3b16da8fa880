"""Conversations with a chat API: what is sent, and what becomes of each kind of answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from llm_provider.errors import EngineLoadingError, EngineUnreachableError
from llm_suite.result import SuiteResult
from llm_suite.runner import Host, run_suites
from llm_suite.suite import Suite
from tests.unit.llm_provider.scripted import (
    KEY,
    READY,
    Scripted,
    in_turn,
    refusal,
    reply,
    serving,
    whole,
)
from tests.unit.llm_suite.conftest import SENTENCE

SuiteOf = Callable[..., Suite]
CALL = {
    "id": "call-7",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
}
TOOLS = {"get_weather": {"description": "Get the weather."}}


async def run(server: Scripted, suite: Suite, **more: Any) -> SuiteResult:
    tries = more.pop("tries", 1)
    (result,) = await run_suites([suite], Host(server.url, KEY, **more), tries=tries)
    return result


def bodies(server: Scripted) -> list[Any]:
    return [each.body for each in server.asked if each.path.endswith("/chat/completions")]


def problems(result: SuiteResult) -> list[str]:
    return result.conversations[0].last.problems


async def test_what_is_sent(server: Scripted, suite_of: SuiteOf) -> None:
    turns = [
        {"user": "Hello", "expect": {"contains": "ready"}},
        {"user": "Again", "expect": {"contains": "ready"}},
    ]
    result = await run(server, suite_of(*turns, system="Be brief.", request={"top_p": 0.5}))
    assert result.ok
    assert (result.model, result.url) == ("smoke", server.url)
    first, second = bodies(server)
    common = {"temperature": 0, "seed": 0, "max_tokens": 256, "top_p": 0.5}
    assert {name: first[name] for name in common} == common
    assert first["stream"] is False
    assert "tools" not in first
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert first["messages"] == messages
    assert second["messages"] == [
        *messages,
        {"role": "assistant", "content": SENTENCE},
        {"role": "user", "content": "Again"},
    ]


async def test_results_of_tools_are_sent(server: Scripted, suite_of: SuiteOf) -> None:
    called = reply(whole(None, "tool_calls", tool_calls=[CALL]))
    server.reset({"chat": in_turn(called, reply(whole("It rains.")))})
    expect = {"tool_call": {"name": "get_weather", "arguments": {"city": "oslo"}}}
    turns = [
        {"user": "The weather?", "expect": expect},
        {"tool_results": {"get_weather": "rain"}, "expect": {"contains": "rain"}},
    ]
    result = await run(server, suite_of(*turns, tools=TOOLS))
    assert result.ok, problems(result)
    first, second = bodies(server)
    assert first["tools"][0]["function"]["name"] == "get_weather"
    assert second["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call-7", "content": "rain"},
    ]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {"tool_calls": [CALL | {"function": {"name": "other", "arguments": "{}"}}]},
            "tool_results has no result of 'other', which the answer before called",
        ),
        ({}, "the answer before called no tool, so there is no call for tool_results"),
    ],
)
async def test_results_without_a_call(
    server: Scripted, suite_of: SuiteOf, message: dict[str, Any], words: str
) -> None:
    server.reset({"chat": reply(whole("Hm.", **message))})
    turns = [
        {"user": "The weather?"},
        {"tool_results": {"get_weather": "rain"}, "expect": {"contains": "rain"}},
    ]
    result = await run(server, suite_of(*turns, tools=TOOLS))
    assert problems(result) == [words]
    assert len(bodies(server)) == 1


async def test_the_first_turn_that_fails_ends_the_conversation(
    server: Scripted, suite_of: SuiteOf
) -> None:
    turns = [
        {"user": "Hello", "expect": {"contains": "ready"}},
        {"user": "Again", "expect": {"contains": ["Paris", "model"], "language": "fr"}},
        {"user": "More", "expect": {"contains": "ready"}},
    ]
    result = await run(server, suite_of(*turns))
    assert not result.ok
    assert problems(result) == [
        f"turn 2: contains: expected an answer with 'Paris', found '{SENTENCE}'",
        f"turn 2: language: expected an answer in the language fr, found '{SENTENCE}', which is en",
    ]
    assert len(bodies(server)) == 2


async def test_a_late_answer_is_not_waited_for(server: Scripted, suite_of: SuiteOf) -> None:
    left = asyncio.Event()

    async def never() -> Any:
        await left.wait()
        yield b""

    def silent() -> Response:
        return StreamingResponse(never(), media_type="application/json")

    server.reset({"chat": silent})
    result = await run(server, suite_of({"user": "Hello", "expect": {"seconds": 0.2}}))
    assert problems(result) == [
        "seconds: expected an answer within 0.2 s, found none: the request was stopped"
    ]
    assert result.conversations[0].last.error == ""
    result = await run(
        server, suite_of({"user": "Hello", "expect": {"contains": "x"}}), timeout=0.2
    )
    assert problems(result) == ["no complete answer within 0.2 s: the request was stopped"]
    assert result.conversations[0].last.error != ""


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        (refusal("Too long.", 400), "refused with status 400: Too long"),
        (reply({"choices": []}), "gave a chat answer without choices"),
        (reply({"choices": [{"message": None}]}), "The answer has no message"),
        (reply(whole("", tool_calls=["x"])), "A tool call of the answer is 'x'"),
        (refusal("Bad \x1b[2J \u202e", 400), "refused with status 400: Bad \ufffd[2J \ufffd"),
    ],
)
async def test_no_answer_is_an_error(
    server: Scripted, suite_of: SuiteOf, chat: Callable[[], JSONResponse], words: str
) -> None:
    server.reset({"chat": chat})
    result = await run(server, suite_of({"user": "Hello", "expect": {"refuses": False}}))
    assert not result.ok
    (problem,) = problems(result)
    assert words in problem
    assert result.conversations[0].last.error == problem


async def test_tries_are_asked_for_and_all_reported(server: Scripted, suite_of: SuiteOf) -> None:
    suite = suite_of({"user": "Hello", "expect": {"contains": "good"}})
    for tries, count, ok in ((1, 1, False), (2, 2, True), (5, 2, True)):
        server.reset({"chat": in_turn(reply(whole("Bad.")), reply(whole("Good.")))})
        result = await run(server, suite, tries=tries)
        assert result.ok is ok
        assert len(result.conversations[0].tries) == count
        assert len(bodies(server)) == count
    first, second = bodies(server)
    assert first == second
    report = json.loads(json.dumps(result.as_dict()))
    tried = report["conversations"][0]["tries"]
    assert [each["turns"][0]["outcomes"][0]["ok"] for each in tried] == [False, True]


async def test_a_suite_without_conversations_has_not_passed() -> None:
    assert not SuiteResult("a", "A", "http://x", "smoke", "now").ok


async def test_a_text_of_some_words(server: Scripted, suite_of: SuiteOf) -> None:
    turn = {
        "user": "Where?",
        "haystack": {"words": 200, "needle": "The key is here.", "position": 0.5},
        "expect": {"contains": "ready"},
    }
    assert (await run(server, suite_of(turn))).ok
    (body,) = bodies(server)
    text = body["messages"][0]["content"]
    assert text.endswith("\n\nWhere?")
    assert "The key is here." in text
    assert 200 <= len(text.split()) <= 230


class Counting(Scripted):
    """Counts a token and a half for each word, and ten for the template."""

    of_word = 1.5

    async def answer(self, request: Request) -> Response:
        if request.url.path == "/v1/chat/completions":
            body = await request.json()
            words = sum(len(each["content"].split()) for each in body["messages"])
            count = 10 + round(self.of_word * words)
            answer = whole(SENTENCE) | {"usage": {"prompt_tokens": count}}
            self._answers["chat"] = reply(answer)
        return await super().answer(request)


FILL = {
    "user": "Where?",
    "haystack": {"fill": 0.75, "needle": "The key is here."},
    "expect": {"contains": "ready"},
}


async def test_a_text_that_fills_a_share_of_the_context(suite_of: SuiteOf) -> None:
    with serving(Counting()) as counting:
        result = await run(counting, suite_of(FILL))
        assert result.ok, problems(result)
        tokens = result.conversations[0].last.turns[0].prompt_tokens
        assert tokens is not None
        assert 0.74 < tokens / READY["context_size"] < 0.77  # type: ignore[operator]
        samples = bodies(counting)[:2]
        assert [each["max_tokens"] for each in samples] == [1, 1]
        # Not the same text in a second run: an engine may not count what it has in memory.
        first = samples[0]["messages"]
        counting.reset()
        await run(counting, suite_of(FILL))
        assert bodies(counting)[0]["messages"] != first


async def test_a_share_of_an_unknown_context(server: Scripted, suite_of: SuiteOf) -> None:
    server.reset({"ready": reply(READY | {"context_size": None})})
    assert problems(await run(server, suite_of(FILL))) == [
        "the host does not tell its context size: use words in place of fill in haystack"
    ]
    server.reset()  # counts 7 tokens, whatever it is asked
    (problem,) = problems(await run(server, suite_of(FILL)))
    assert problem.startswith(
        "the tokens of a word were not measured: the host counts 7 tokens for 1"
    )
    assert problem.endswith("Use words in place of fill in haystack")
    server.reset({"chat": refusal("No.", 400)})
    (problem,) = problems(await run(server, suite_of(FILL)))
    assert "the tokens of a word were not measured: " in problem
    assert problem.endswith("refused with status 400: No")


async def test_a_host_that_is_not_ready(server: Scripted, suite_of: SuiteOf) -> None:
    suite = suite_of({"user": "Hello", "expect": {"contains": "x"}})
    server.reset({"ready": refusal("Loading.", 503, "engine_not_ready")})
    with pytest.raises(EngineLoadingError):
        await run(server, suite)
    with pytest.raises(EngineUnreachableError):
        await run_suites([suite], Host("http://127.0.0.1:9"))
