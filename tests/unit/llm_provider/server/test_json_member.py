"""One member of a JSON object that arrives in pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.server.json_member import JSONMember

USAGE = {"input_tokens": 7, "details": {"cached": [0, {"a": '}"{\\'}]}, "output_tokens": 6}


def found(raw: bytes, pieces: list[bytes] | None = None, *path: str) -> object:
    member = JSONMember(*(path or ("response", "usage")))
    for piece in pieces or [raw]:
        member.feed(piece)
    return None if member.raw is None else json.loads(member.raw)


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"response": {"usage": USAGE}}, USAGE),
        ({"response": {"output": ["x" * 50, {"usage": 1}], "usage": USAGE, "user": None}}, USAGE),
        ({"usage": {"a": 1}, "response": {"tools": {"usage": {"b": 2}}, "usage": USAGE}}, USAGE),
        ({"response": {"text": '"usage": {"a": 1}', "usage": USAGE}}, USAGE),
        ({"response": {"a\\": "usage\\", '"usage': {}, "usage": USAGE}}, USAGE),
        ({"x": {"response": {"usage": {"a": 1}}}, "response": {"usage": USAGE}}, USAGE),
        ({"response": {"usage": {}}}, {}),
        ({"response": {"usage": None, "other": {"a": 1}}}, None),
        ({"response": {"usage": [{"a": 1}]}}, None),
        ({"response": {"usage": "x", "b": {"a": 1}}}, None),
        ({"response": ["usage", {"usage": {"a": 1}}]}, None),
        ({"response": {"usage2": {"a": 1}, "usag": {"a": 1}}}, None),
        ({"response": {}, "usage": {"a": 1}}, None),
        (["response", {"response": {"usage": {"a": 1}}}], None),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_member_on_every_cut(document: Any, wanted: object, indent: int | None) -> None:
    raw = b"data: " + json.dumps(document, indent=indent).encode() + b"\n\n"
    for at in range(len(raw) + 1):
        assert found(raw, [raw[:at], raw[at:]]) == wanted, at
    assert found(raw, [raw[at : at + 1] for at in range(len(raw))]) == wanted


texts = st.text(st.sampled_from('u"\\{}[]:, é\n'), max_size=6)
names = st.sampled_from(["response", "usage", "other", 'a"b\\'])
documents = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(names, documents, max_size=3), st.lists(st.integers(0, 500), max_size=9))
def test_a_member_of_any_document(document: dict[str, Any], places: list[int]) -> None:
    raw = json.dumps(document).encode()
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    response = document.get("response")
    usage = response.get("usage") if isinstance(response, dict) else None
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    assert found(raw, pieces) == (usage if isinstance(usage, dict) else None)


def test_nothing_else_is_kept() -> None:
    member = JSONMember("response", "usage", limit=100)
    member.feed(b'{"response": {"text": "')
    for _ in range(1000):
        member.feed(b"x" * 1000)
    assert len(member._string) < 10
    member.feed(b'", "usage": {"a": "' + b"y" * 90)
    assert (member.raw, member._kept is None) == (None, False)
    member.feed(b"y" * 1000 + b'"}}}')
    assert (member.raw, member._kept) == (None, None)
