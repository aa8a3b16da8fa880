"""The tables of parameters against the engines themselves: what they do, and what they ignore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from llm_provider.providers.parameters.sorting import sort_fields
from llm_provider.providers.routes import CHAT, COMPLETIONS, RESPONSES
from tests.integration.engines.conftest import House
from tests.integration.engines.running import settings_of
from tests.integration.engines.serving import Served
from tests.integration.engines.test_answers import WEATHER

HELLO: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20},
    COMPLETIONS: {"prompt": "Hello", "max_tokens": 20},
    RESPONSES: {"input": "Hello", "max_output_tokens": 20},
}
FORECAST = {
    "type": "function",
    "function": {
        "name": "get_forecast",
        "parameters": {
            "type": "object",
            "properties": {"days": {"type": "integer"}},
            "required": ["days"],
        },
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
# Longer than the context of 4096 tokens, and no message of it alone.
CONVERSATION = [{"role": "user", "content": "far too long " * 20}] * 40
DROPPED = "x-edge-llm-dropped"


def text(answer: dict[str, Any]) -> str:
    """The text of an answer of any route."""
    if "output" in answer:
        messages = [item for item in answer["output"] if item["type"] == "message"]
        return "".join(part["text"] for item in messages for part in item["content"])
    choice = answer["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def logprobs(answer: dict[str, Any]) -> Any:
    """The probabilities of an answer's tokens; nothing where it has none."""
    if "output" in answer:
        return answer["output"][-1]["content"][0].get("logprobs")
    return answer["choices"][0].get("logprobs")


@dataclass(frozen=True)
class Sample:
    """A parameter, and how an answer shows that the engine did what it asks.

    `was_done` gets the answer, and the text that the model gives to any question.
    """

    path: str
    asked: dict[str, Any]
    was_done: Callable[[dict[str, Any], str], Any]


def _is_bound(answer: dict[str, Any], usual: str) -> bool:
    return text(answer) != usual


SAMPLES = [
    Sample(CHAT, {"n": 2}, lambda answer, _: len(answer["choices"]) == 2),
    Sample(CHAT, {"logprobs": True}, lambda answer, _: logprobs(answer)),
    Sample(CHAT, {"top_logprobs": 2}, lambda answer, _: logprobs(answer)),
    Sample(CHAT, {"logit_bias": {"42": 100}}, _is_bound),
    Sample(CHAT, {"stop": [" ready"]}, _is_bound),
    Sample(CHAT, {"response_format": {"type": "json_object"}}, _is_bound),
    Sample(CHAT, {"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}},
           lambda answer, _: answer["choices"][0]["message"].get("audio")),
    Sample(CHAT, {"functions": [WEATHER["function"]], "function_call": {"name": "get_weather"}},
           lambda answer, _: answer["choices"][0]["message"].get("function_call")),
    Sample(CHAT, {"grammar": 'root ::= "x"'}, _is_bound),
    Sample(CHAT, {"structured_outputs": {"choice": ["x"]}}, _is_bound),
    Sample(CHAT, {"guided_choice": ["x"]}, _is_bound),
    Sample(CHAT, {"ignore_eos": True},
           lambda answer, _: answer["choices"][0]["finish_reason"] == "length"),
    Sample(COMPLETIONS, {"n": 2}, lambda answer, _: len(answer["choices"]) == 2),
    Sample(COMPLETIONS, {"echo": True}, lambda answer, _: text(answer).startswith("Hello")),
    Sample(COMPLETIONS, {"logprobs": 1}, lambda answer, _: logprobs(answer)),
    Sample(COMPLETIONS, {"response_format": {"type": "json_object"}}, _is_bound),
    Sample(RESPONSES, {"text": {"format": {"type": "json_object"}}}, _is_bound),
    Sample(RESPONSES, {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
           _is_bound),
    Sample(RESPONSES, {"include": ["message.output_text.logprobs"]},
           lambda answer, _: logprobs(answer)),
    Sample(RESPONSES, {"background": True}, lambda answer, _: answer["status"] != "completed"),
    # What is not there cannot be continued: doing it is refusing it.
    Sample(RESPONSES, {"previous_response_id": "resp_0"}, lambda *_: False),
    Sample(RESPONSES, {"conversation": "conv_0"}, lambda *_: False),
    Sample(RESPONSES, {"prompt": {"id": "pmpt_0"}}, lambda *_: False),
    Sample(RESPONSES, {"input": CONVERSATION, "truncation": "disabled"}, lambda *_: False),
]  # fmt: skip


def ask(served: Served, path: str, body: dict[str, Any]) -> httpx.Response:
    """Put a request to the engine itself."""
    key = served.engine.key_file
    headers = {"Authorization": f"Bearer {key.read_text().strip()}"} if key else {}
    body = {"model": served.engine.model, "temperature": 0} | HELLO[path] | body
    return httpx.post(served.engine.base_url + path, json=body, headers=headers, timeout=600)


@pytest.mark.parametrize(
    "sample", SAMPLES, ids=lambda sample: f"{sample.path}-{next(reversed(sample.asked))}"
)
def test_the_table_says_what_the_engine_does(smoke: Served, sample: Sample) -> None:
    fields = HELLO[sample.path] | sample.asked
    refusal = sort_fields(smoke.engine.provider, sample.path, fields, strict=True).refusal
    answer = ask(smoke, sample.path, sample.asked)
    refused = 400 <= answer.status_code < 500
    assert refused or answer.status_code == 200, answer.text
    done = refused or bool(sample.was_done(answer.json(), smoke.answer))
    if refusal is None:
        assert done, f"The table has it as done, and it is ignored: {answer.text}"
    else:
        assert not done, f"The table has it as ignored ({refusal.param}): {answer.text}"


def test_a_conversation_that_is_too_long_is_refused_or_cut(smoke: Served) -> None:
    """What `truncation` is about: `disabled` is llama.cpp's way, `auto` is Ollama's."""
    answer = ask(smoke, RESPONSES, {"input": CONVERSATION})
    assert answer.status_code == (200 if smoke.engine.provider == "ollama" else 400), answer.text


async def test_a_named_function_is_called(tools: Served) -> None:
    """The model would call the other; Ollama cannot be made to."""
    choice = {"type": "function", "function": {"name": "get_forecast"}}
    asked = {"tools": [WEATHER, FORECAST], "tool_choice": choice, "max_tokens": 60}
    dropped: list[str] = []
    async with tools.provider() as provider:
        answer = await provider.send(CHAT, HELLO[CHAT] | asked, on_dropped=dropped.extend)
    if tools.engine.provider == "ollama":
        assert dropped == ["tool_choice"]
        return
    assert dropped == []
    (call, *_) = answer.data["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_forecast"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
async def test_the_chat_api_names_what_it_drops(smoke: Served, path: str, streamed: bool) -> None:
    body = HELLO[path] | {"user": "me", "stream": streamed}
    async with smoke.api.client() as client:
        answer = await client.post(path, json=body)
        plain = await client.post(path, json=HELLO[path] | {"stream": streamed})
    assert (answer.status_code, plain.status_code) == (200, 200), answer.text
    assert answer.headers[DROPPED] == "user"
    assert DROPPED not in plain.headers


async def test_the_chat_api_names_several(smoke: Served) -> None:
    asked = {"parallel_tool_calls": False, "metadata": {"a": "b"}, "verbosity": "low"}
    async with smoke.api.client() as client:
        answer = await client.post(CHAT, json=HELLO[CHAT] | asked)
    assert answer.status_code == 200, answer.text
    dropped = ["parallel_tool_calls"] if smoke.engine.provider == "ollama" else []
    assert answer.headers[DROPPED].split(", ") == [*dropped, "metadata", "verbosity"]


async def test_the_chat_api_refuses_what_changes_the_answer(smoke: Served) -> None:
    async with smoke.api.client() as client:
        answer = await client.post(CHAT, json=HELLO[CHAT] | {"web_search_options": {}})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": f"'web_search_options' does not fit {smoke.engine.provider}: {{}} would be "
        "ignored, which changes the answer. Leave it out.",
        "type": "invalid_request_error",
        "param": "web_search_options",
        "code": "not_supported_by_engine",
    }


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("user", "'user' does not fit {}: \"me\" would be ignored, which strict mode refuses."),
        ("usr", "'usr' is unknown: {} would ignore it on /v1/chat/completions"),
    ],
)
async def test_a_strict_chat_api_refuses_what_is_ignored(
    smoke: Served, house: House, param: str, words: str
) -> None:
    api = house.api(settings_of(smoke.engine) | {"CHAT_API_STRICT": "1"})
    api.start()
    async with api.client() as client:
        answer = await client.post(CHAT, json=HELLO[CHAT] | {param: "me"})
        plain = await client.post(CHAT, json=HELLO[CHAT])
    api.stop()
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words.format(smoke.engine.provider) in error["message"]
    assert (error["param"], error["code"]) == (param, "not_supported_by_engine")
    assert plain.status_code == 200, plain.text
