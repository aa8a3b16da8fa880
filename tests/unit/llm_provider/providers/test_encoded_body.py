"""Bodies that are JSON already: what a provider reads and changes, and what stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_provider import VLLM, LlamaCpp, LLMProvider, Ollama
from llm_provider.errors import Unsupported
from llm_provider.providers.encoded_body import (
    MOST_VALUES,
    EncodedBody,
    TooManyValuesError,
    count_values,
    editable,
    encode_body,
)
from llm_provider.providers.routes import CHAT

from ..fake import CONTEXT, MODEL, FakeEngine

MESSAGES = b'[ {"role":"user" , "content":"\\ud83d\\ude00 \xc3\xa4"} ]'


def encoded(**fields: bytes) -> EncodedBody:
    return EncodedBody({name: memoryview(value) for name, value in fields.items()})


def test_fields_are_decoded_one_by_one() -> None:
    body = encoded(messages=MESSAGES, n=b"2", broken=b"{")
    assert body["n"] == 2
    assert body["messages"] == [{"role": "user", "content": "😀 ä"}]
    assert list(body) == ["messages", "n", "broken"]
    assert len(body) == 3
    assert "broken" in body  # which is not decoded for that
    assert body.get("seed", 7) == 7
    with pytest.raises(KeyError):
        body["seed"]


def test_changes_leave_the_other_fields_as_they_were() -> None:
    body = encoded(model=b'"m"', messages=MESSAGES, seed=b"18446744073709551616", other=b"[1.50]")
    changed = editable(body)
    changed.update(model='n"ew', stream=True)
    assert changed.pop("seed") == 18446744073709551616
    assert encode_body(changed) == (
        b'{"model":"n\\"ew","messages":' + MESSAGES + b',"other":[1.50],"stream":true}'
    )
    assert encode_body(body).startswith(b'{"model":"m","messages":[ {')
    assert encode_body(EncodedBody({})) == b"{}"


def test_a_mapping_is_copied_and_encoded_too() -> None:
    body = {"a": "\ud800", "b": [1, 2]}
    changed = editable(body)
    del changed["b"]
    assert (body["b"], encode_body(changed)) == ([1, 2], b'{"a":"\\ud800"}')


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(TEXT, VALUE, max_size=8))
def test_any_body_is_the_same_after_encoding(fields: dict[str, Any]) -> None:
    body = EncodedBody({name: json.dumps(value).encode() for name, value in fields.items()})
    assert json.loads(encode_body(body)) == fields == dict(body)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"1", 1),
        (b"[]", 2),
        (b'[1,"a,b[{",{}]', 5),
        (b'"a,b"', 1),
        (b'"\\",\\\\"', 1),
        (b'{"a":{"b":[1,2]}}', 5),
    ],
)
def test_values_are_counted_without_those_in_strings(text: bytes, count: int) -> None:
    assert count_values(text, count) == count
    if count > 1:
        assert count_values(text, count - 1) == count  # as soon as there are more
    assert count_values(text, 1000) == 1 + sum(map(text.count, (b",", b"[", b"{")))


def test_too_many_values_are_not_decoded() -> None:
    most = b"[" + b"0," * (MOST_VALUES - 2) + b"0]"
    text = json.dumps(["x," * MOST_VALUES]).encode()
    body = encoded(most=most, text=text, more=most[:-1] + b",0]")
    assert len(body["most"]) == MOST_VALUES - 1
    assert body["text"] == ["x," * MOST_VALUES]
    with pytest.raises(TooManyValuesError) as caught:
        body["more"]
    assert caught.value.param == "more"
    assert str(caught.value) == "'more' holds more than 100000 values. Send fewer."
    assert encode_body(body).endswith(b",0]}")  # passed on all the same


@pytest.mark.parametrize("kind", [LlamaCpp, VLLM, Ollama])
async def test_every_engine_gets_it_as_it_gets_any_other_body(kind: type[LLMProvider]) -> None:
    parts = [{"type": "text", "text": text} for text in ("Hel", "lo")]
    fields = {
        "messages": [{"role": "user", "content": parts}, {"role": "user", "content": "😀"}],
        "model": "other",
        "max_tokens": 5,
        "seed": None,
    }
    body = EncodedBody({name: json.dumps(value).encode() for name, value in fields.items()})
    async with (
        FakeEngine(kind.name).serving() as engine,
        kind(model=MODEL, base_url=engine.url, timeout=2) as llm,
    ):
        await llm.send(CHAT, fields)
        await llm.send(CHAT, body)
        assert engine.asked[0] == engine.asked[1]
        assert engine.asked[1]["model"] == MODEL
        del body["max_tokens"]
        chunks = [chunk async for chunk in llm.raw_stream(CHAT, body)]
        assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
        assert engine.asked[2]["stream"] is True
        assert engine.asked[2].get("max_tokens") == (CONTEXT if kind is Ollama else None)


async def test_what_an_engine_drops_is_refused_in_it_too() -> None:
    async with Ollama(model=MODEL, timeout=2) as llm:
        with pytest.raises(Unsupported, match="'n' does not fit ollama: 2 "):
            await llm.send(CHAT, encoded(messages=MESSAGES, n=b"2"))
