"""What engines refuse, in their own words, and what they cannot do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llm_provider import EngineRefusedError, Unsupported
from tests.integration.engines import running
from tests.integration.engines.serving import CHAT, Served, text_of
from tests.integration.engines.test_answers import WEATHER

# Longer than the context, whichever way it is counted: one token a character, and 4096 in all.
TOO_LONG = [{"role": "user", "content": "far too long " * 400}]
NUMBER = [{"role": "user", "content": 5}]
BAD_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "bad", "schema": {"type": "nonsense"}},
}


def refused(served: Served) -> dict[str, tuple[dict[str, Any], str]]:
    """Bodies that an engine refuses, each with a pattern of its words."""
    return {
        "overflow": ({"messages": TOO_LONG}, served.engine.overflow),
        "malformed": ({"messages": NUMBER}, served.engine.malformed),
        "schema": ({"response_format": BAD_SCHEMA}, served.engine.schema),
    }


CASES = pytest.mark.parametrize("case", ["overflow", "malformed", "schema"])
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@CASES
@STREAMED
async def test_the_module_tells_the_engine_s_words(
    smoke: Served, case: str, streamed: bool
) -> None:
    body, words = refused(smoke)[case]
    async with smoke.provider() as provider:
        with pytest.raises(EngineRefusedError) as caught:
            if streamed:
                async for _ in provider.stream(HELLO | body):
                    raise AssertionError("A refusal has no events.")
            else:
                await provider.chat(HELLO | body)
    assert caught.value.status == 400
    # The words themselves, not JSON inside JSON.
    assert re.search(words, caught.value.words)
    assert not caught.value.words.startswith("{")


@CASES
@STREAMED
async def test_the_api_passes_the_engine_s_words_on(
    smoke: Served, case: str, streamed: bool
) -> None:
    body, words = refused(smoke)[case]
    async with smoke.api.client() as client:
        answer = await client.post(CHAT, json=HELLO | body | {"stream": streamed})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() >= {"message", "type", "param", "code"}
    assert isinstance(error["type"], str)
    assert re.search(words, error["message"])
    if case == "overflow":
        assert error["code"] == "context_length_exceeded"
        assert (error["n_ctx"], error["n_prompt_tokens"] > 4096) == (4096, True)


async def test_a_refusal_costs_no_slot(smoke: Served) -> None:
    async with smoke.at("api") as engine, smoke.api.client() as client:
        for _ in range(2 * smoke.engine.parallel):
            answer = await client.post(CHAT, json={"messages": TOO_LONG})
            assert answer.status_code == 400
        assert text_of([event async for event in engine.stream()]) == smoke.answer


# Whatever one of the engines would ignore is asked of all of them.
FIELDS = {
    field: value
    for name in ("llamacpp", "ollama", "vllm")
    for field, value in running.engine(name).unsupported.items()
}


@pytest.mark.parametrize("field", sorted(FIELDS))
async def test_a_field_is_done_or_refused(tools: Served, field: str) -> None:
    """No engine's silence stands for `done`: an error names what it would ignore."""
    body = HELLO | {field: FIELDS[field], "tools": [WEATHER]}
    async with tools.provider() as provider, tools.api.client() as client:
        if field in tools.engine.unsupported:
            with pytest.raises(Unsupported) as caught:
                await provider.chat(body)
            assert caught.value.param == field
            with pytest.raises(Unsupported):
                await anext(provider.stream(body))
            answer = await client.post(CHAT, json=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == field
            assert tools.engine.provider in answer.json()["error"]["message"]
        else:
            wanted = 2 if field == "n" else 1
            assert len((await provider.chat(body))["choices"]) == wanted
            answer = await client.post(CHAT, json=body)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["choices"]) == wanted


async def test_what_every_engine_has_beside_chat(smoke: Served) -> None:
    async with smoke.api.client() as client:
        body = {"prompt": "Hello", "max_tokens": 30}
        answer = await client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"] == smoke.answer
        body = {"input": "Hello", "max_output_tokens": 30}
        answer = await client.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        (message,) = answer.json()["output"]
        assert message["content"][0]["text"] == smoke.answer


async def test_the_other_routes_stream_to_their_own_ends(smoke: Served) -> None:
    async with smoke.api.client() as client:
        answer = await client.post("/v1/completions", json={"prompt": "Hello", "stream": True})
        assert answer.text.endswith("data: [DONE]\n\n")
        answer = await client.post("/v1/responses", json={"input": "Hello", "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "event: response.completed\n" in answer.text
        assert answer.text.count("event: response.output_text.delta\n") > 1
        assert '"error":{' not in answer.text


async def test_what_an_engine_has_not_is_said(smoke: Served) -> None:
    """Neither gives embeddings of a chat model unless started for it."""
    async with smoke.provider() as provider:
        with pytest.raises(Unsupported, match=smoke.engine.embeddings):
            await provider.send("/v1/embeddings", {"input": "Hello"})
    async with smoke.api.client() as client:
        answer = await client.post("/v1/embeddings", json={"input": "Hello"})
    assert answer.status_code == 501
    assert "was started for chat" in answer.json()["error"]["message"]


async def test_a_model_that_is_not_served(smoke: Served) -> None:
    async with smoke.api.client() as client:
        answer = await client.post(CHAT, json=HELLO | {"model": "gpt-4o"})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "smoke" in answer.json()["error"]["message"]
        for model in ("smoke", "default"):
            answer = await client.post(CHAT, json=HELLO | {"model": model})
            assert answer.status_code == 200, answer.text
