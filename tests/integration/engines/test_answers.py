"""What engines answer, whole and streamed, at the module and through the chat API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.engines.serving import Served, finish_of, pieces_of, text_of

FRANCE = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
PARIS = "The capital of France is Paris."


def said(answer: dict[str, Any]) -> str:
    content: str = answer["choices"][0]["message"]["content"]
    return content


def finish(answer: dict[str, Any]) -> str:
    reason: str = answer["choices"][0]["finish_reason"]
    return reason


async def test_a_whole_answer(smoke: Served, level: str) -> None:
    async with smoke.at(level) as engine:
        answer = await engine.chat()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "smoke"
    assert len(answer["choices"]) == 1
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert said(answer) == smoke.answer
    assert finish(answer) == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] >= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream(smoke: Served, level: str) -> None:
    async with smoke.at(level) as engine:
        events = [event async for event in engine.stream()]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["model"] for event in events} == {"smoke"}
    assert len({event["id"] for event in events}) == 1
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len(pieces_of(events)) > 1
    assert text_of(events) == smoke.answer
    assert finish_of(events) == "stop"


async def test_a_real_model_answers_the_same_at_temperature_0(smollm2: Served, level: str) -> None:
    async with smollm2.at(level) as engine:
        answer = await engine.chat(messages=FRANCE, temperature=0)
        events = [event async for event in engine.stream(messages=FRANCE, temperature=0)]
    assert said(answer) == text_of(events) == PARIS


async def test_a_stream_tells_its_usage_when_asked(smoke: Served, level: str) -> None:
    async with smoke.at(level) as engine:
        asked = {"stream_options": {"include_usage": True}}
        events = [event async for event in engine.stream(**asked)]
        whole = await engine.chat()
    assert [event for event in events if event.get("usage")] == events[-1:]
    assert events[-1]["choices"] == []
    counted = {name: whole["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
    assert counted.items() <= events[-1]["usage"].items()


async def test_a_stream_tells_no_usage_unasked(smoke: Served, level: str) -> None:
    async with smoke.at(level) as engine:
        events = [event async for event in engine.stream()]
    assert not [event for event in events if event.get("usage")]
    assert not [event for event in events if not event["choices"]]


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        (" ready", "All systems are"),
        ([" model", " systems"], "All"),
        ("never said", "All systems are ready: the edge model answers."),
    ],
)
async def test_stop(smoke: Served, level: str, stop: str | list[str], kept: str) -> None:
    async with smoke.at(level) as engine:
        answer = await engine.chat(stop=stop)
        events = [event async for event in engine.stream(stop=stop)]
    assert said(answer) == text_of(events) == kept
    assert finish(answer) == finish_of(events) == "stop"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_of_tokens(endless: Served, level: str, field: str) -> None:
    async with endless.at(level) as engine:
        answer = await engine.chat(**{field: 13})
        events = [event async for event in engine.stream(**{field: 13})]
    assert said(answer) == text_of(events) == endless.answer + " one two three"
    assert finish(answer) == finish_of(events) == "length"
    assert answer["usage"]["completion_tokens"] == 13


async def test_an_answer_ends_with_the_context(endless: Served, level: str) -> None:
    """Nobody limits it, and the model never stops: the context does."""
    async with endless.at(level) as engine:
        events = [event async for event in engine.stream(max_tokens=None)]
    words = text_of(events).split()
    assert words == (endless.answer.split() * 410)[: len(words)]
    assert 4000 <= len(words) <= 4096
    assert finish_of(events) == "length"


async def test_a_seed_makes_chance_repeatable(smollm2: Served, level: str) -> None:
    body = {
        "messages": [{"role": "user", "content": "Name an animal and say why you like it."}],
        "temperature": 1.5,
        "max_tokens": 24,
    }
    async with smollm2.at(level) as engine:
        first = said(await engine.chat(**body, seed=7))
        again = said(await engine.chat(**body, seed=7))
        others = {said(await engine.chat(**body, seed=seed)) for seed in (8, 9)}
    assert first == again
    assert others - {first}


async def test_an_answer_to_a_schema(smollm2: Served, level: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "country": {"enum": ["France", "Spain"]},
        },
        "required": ["city", "country"],
        "additionalProperties": False,
    }
    body = {
        "messages": FRANCE,
        "temperature": 0,
        "max_tokens": 80,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "capital", "strict": True, "schema": schema},
        },
    }
    async with smollm2.at(level) as engine:
        answer = await engine.chat(**body)
        events = [event async for event in engine.stream(**body)]
    for text in (said(answer), text_of(events)):
        found = json.loads(text)
        assert found.keys() == {"city", "country"}
        assert found["country"] in ("France", "Spain")
        assert found["city"] == "Paris"


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of the next days",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CALL = {"city": "Paris", "days": 3}


async def test_a_tool_call(tools: Served, level: str) -> None:
    async with tools.at(level) as engine:
        answer = await engine.chat(tools=[WEATHER])
    assert finish(answer) == "tool_calls"
    assert not said(answer)
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["id"] and call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == CALL


async def test_a_streamed_tool_call(tools: Served, level: str) -> None:
    async with tools.at(level) as engine:
        events = [event async for event in engine.stream(tools=[WEATHER], tool_choice="auto")]
    assert finish_of(events) == "tool_calls"
    assert text_of(events) == ""
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    parts = [part for delta in deltas for part in delta.get("tool_calls") or []]
    assert {part["index"] for part in parts} == {0}
    assert parts[0]["id"] and parts[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(part["function"].get("arguments", "") for part in parts)) == CALL


async def test_a_tool_s_result_goes_back_in(tools: Served, level: str) -> None:
    call = {"name": "get_weather", "arguments": json.dumps(CALL)}
    messages = [
        {"role": "user", "content": "Will it rain?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call-1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": "Rain."},
    ]
    async with tools.at(level) as engine:
        before = await engine.chat(tools=[WEATHER], messages=messages[:1])
        after = await engine.chat(tools=[WEATHER], messages=messages)
    assert finish(after) == "tool_calls"
    added = after["usage"]["prompt_tokens"] - before["usage"]["prompt_tokens"]
    assert added > len(json.dumps(CALL)), "the call and its result are in the prompt"


async def test_a_tool_that_must_not_be_called(tools: Served, level: str) -> None:
    async with tools.at(level) as engine:
        answer = await engine.chat(tools=[WEATHER], tool_choice="none")
    assert finish(answer) == "stop"
    assert not answer["choices"][0]["message"].get("tool_calls")
    assert said(answer) == tools.answer


async def test_logprobs(smollm2: Served, level: str) -> None:
    body = {"messages": FRANCE, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    async with smollm2.at(level) as engine:
        answer = await engine.chat(**body)
        events = [event async for event in engine.stream(**body)]
    streamed = [
        token
        for event in events
        for choice in event["choices"]
        for token in (choice.get("logprobs") or {}).get("content") or []
    ]
    for tokens in (answer["choices"][0]["logprobs"]["content"], streamed):
        assert "".join(token["token"] for token in tokens).startswith(PARIS)
        assert all(token["logprob"] <= 0 for token in tokens)
        assert all(len(token["top_logprobs"]) == 2 for token in tokens)


async def test_text_in_parts_is_one_message(smollm2: Served, level: str) -> None:
    text = FRANCE[0]["content"]
    parts = [{"type": "text", "text": text[:30]}, {"type": "text", "text": text[30:]}]
    async with smollm2.at(level) as engine:
        answer = await engine.chat(messages=[{"role": "user", "content": parts}], temperature=0)
    assert said(answer) == PARIS


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_of_4000_tokens(smoke: Served, level: str, streamed: bool) -> None:
    # One token a character, and some for the template.
    messages = [{"role": "user", "content": "A long story. " * 287}]
    async with smoke.at(level) as engine:
        if streamed:
            asked = {"messages": messages, "stream_options": {"include_usage": True}}
            events = [event async for event in engine.stream(**asked)]
            text, usage = text_of(events), events[-1]["usage"]
        else:
            answer = await engine.chat(messages=messages)
            text, usage = said(answer), answer["usage"]
    assert text == smoke.answer
    assert 4000 <= usage["prompt_tokens"] <= 4080


async def test_a_real_model_reads_4000_tokens(smollm2: Served) -> None:
    """Seconds pass before its first word: nobody on the way may lose patience."""
    body = {
        "messages": [{"role": "user", "content": "The boat is blue. " * 797}],
        "temperature": 0,
        "max_tokens": 8,
        "stream_options": {"include_usage": True},
    }
    async with smollm2.at("api") as engine:
        events = [event async for event in engine.stream(**body)]
    assert 4000 <= events[-1]["usage"]["prompt_tokens"] <= 4088
    assert events[-1]["usage"]["completion_tokens"] == 8
    assert text_of(events)


async def test_what_an_engine_says_of_itself(smoke: Served) -> None:
    async with smoke.provider() as provider:
        await provider.health()
        await provider.ready()
        await provider.load()
        models = await provider.models()
        capacity = await provider.capacity()
    assert {name.removesuffix(":latest") for name in models} >= {"smoke"}
    assert capacity.context_size == smoke.engine.context
    # Not every engine tells its slots; one that does tells the truth.
    assert capacity.parallel in (None, smoke.engine.parallel)
    async with smoke.api.client() as client:
        told = (await client.get("/ready")).json()
        listed = (await client.get("/v1/models")).json()
    assert (told["provider"], told["model"]) == (smoke.engine.provider, "smoke")
    assert (told["context_size"], told["parallel"]) == (4096, 4)
    assert [entry["id"] for entry in listed["data"]] == ["smoke"]


async def test_a_message_and_its_answer(smoke: Served) -> None:
    """The short ways: a text in, a text out."""
    async with smoke.provider() as provider:
        assert await provider.generate("Are you there?", system="Be brief.") == smoke.answer
        pieces = [piece async for piece in provider.generate_stream("Are you there?")]
    assert len(pieces) > 1
    assert "".join(pieces) == smoke.answer
    async with smoke.api.client() as client:
        whole = await client.post("/api/chat", json={"message": "Are you there?"})
        body = {"message": "Are you there?", "stream": True}
        streamed = await client.post("/api/chat", json=body)
    answer = whole.json()
    assert (answer["answer"], answer["model"]) == (smoke.answer, "smoke")
    assert (answer["finish_reason"], answer["usage"]["completion_tokens"] > 7) == ("stop", True)
    *events, done, rest = streamed.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert "".join(json.loads(event[6:])["delta"] for event in events) == smoke.answer
    assert len(events) > 1
