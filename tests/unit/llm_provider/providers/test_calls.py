"""How requests are given: as a body, as messages with options, as texts to embed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_provider import ConfigurationError, Embeddings, LlamaCpp, MalformedAnswer
from llm_provider.providers.routes import EMBEDDINGS

from ..fake import ANSWER, MODEL, FakeEngine, completion

MESSAGES = [{"role": "user", "content": "Hello"}]


async def test_messages_with_options(engine: FakeEngine, llm: LlamaCpp) -> None:
    assert await llm.chat(messages=MESSAGES, temperature=0, stop=["x"]) == completion()
    assert await llm.chat({"messages": MESSAGES}, temperature=0, stop=["x"]) == completion()
    assert await llm.chat(body={"messages": MESSAGES, "temperature": 0, "stop": ["x"]})
    async for _ in llm.stream(messages=tuple(MESSAGES), temperature=0, stop=["x"]):
        pass
    sent = {"messages": MESSAGES, "temperature": 0, "stop": ["x"], "model": MODEL}
    assert engine.asked == [{**sent, "stream": False}] * 3 + [{**sent, "stream": True}]


async def test_a_body_is_not_changed(llm: LlamaCpp) -> None:
    body: dict[str, Any] = {"messages": MESSAGES, "model": "mine", "stream": True}
    await llm.chat(body, seed=1)
    assert body == {"messages": MESSAGES, "model": "mine", "stream": True}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {},
            "The chat request is invalid: neither a body nor messages are given. "
            "Give a body, or messages= with options.",
        ),
        (
            {"body": {"messages": MESSAGES}, "messages": MESSAGES},
            "The chat request is invalid: a body and messages are given. "
            "Give a body, or messages= with options.",
        ),
        (
            {"messages": MESSAGES, "stream": True},
            "The option 'stream' is invalid: the provider sets that field. Leave it out.",
        ),
        (
            {"messages": MESSAGES, "model": "another"},
            "The option 'model' is invalid: the provider sets that field. Leave it out.",
        ),
    ],
)
async def test_requests_that_cannot_be_meant(
    engine: FakeEngine, llm: LlamaCpp, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await llm.chat(**given)
    assert str(caught.value) == sentence
    with pytest.raises(ConfigurationError) as caught:
        llm.stream(**given)
    assert str(caught.value) == sentence
    assert engine.connections == 0


def embeddings(*vectors: Any, **more: Any) -> Callable[[Any], Any]:
    data = [{"index": index, "embedding": one} for index, one in enumerate(vectors)]
    answer = {"object": "list", "data": data[::-1], "model": "emb", **more}
    return lambda exchange: exchange.answer(answer)


async def test_embeddings(engine: FakeEngine, llm: LlamaCpp) -> None:
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    engine.on(EMBEDDINGS, embeddings([0.1, 2], [-1.0, 0.5], usage=usage))
    found = await llm.embed(["one", "two"], encoding_format="float")
    assert found == Embeddings([[0.1, 2], [-1.0, 0.5]], "emb", 5)
    engine.on(EMBEDDINGS, embeddings([0.1]))
    assert (await llm.embed("one")).vectors == [[0.1]]
    assert [each.body for each in engine.posts] == [
        {"encoding_format": "float", "input": ["one", "two"], "model": MODEL, "stream": False},
        {"input": ["one"], "model": MODEL, "stream": False},
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "The embeddings do not fit: no list for 1 texts."),
        ({"data": []}, "The embeddings do not fit: 0 for 1 texts."),
        ({"data": [1]}, "The embedding 0 is invalid: it is no list of numbers."),
        ({"data": [{"embedding": "AACAPw=="}]}, "Leave 'encoding_format' out."),
        ({"data": [{"embedding": [True]}]}, "The embedding 0 is invalid"),
        ({"data": [{"embedding": []}]}, "The embedding 0 is invalid"),
        ({"data": [{"embedding": [1], "index": 1}]}, r"their indexes are \[1\]"),
    ],
)
async def test_answers_that_are_no_embeddings(
    engine: FakeEngine, llm: LlamaCpp, answer: dict[str, Any], words: str
) -> None:
    engine.on(EMBEDDINGS, lambda exchange: exchange.answer(answer))
    with pytest.raises(MalformedAnswer, match=words):
        await llm.embed("one")


async def test_generate_takes_further_fields(engine: FakeEngine, llm: LlamaCpp) -> None:
    assert await llm.generate("Hello", system="Be kind.", seed=1) == ANSWER
    assert engine.asked[0]["seed"] == 1
    assert [each["role"] for each in engine.asked[0]["messages"]] == ["system", "user"]
