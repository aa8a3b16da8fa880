"""/tokenize and /detokenize, from and to llama.cpp's and vLLM's format."""

from __future__ import annotations

from typing import Any

import pytest

from llm_provider.server.client_apis.tokenize import (
    detokenize_answer,
    detokenize_request,
    tokenize_answer,
    tokenize_request,
)
from llm_provider.server.translations.errors import TranslationError

LLAMACPP = {"tokens": [1, 2]}
PIECES = {"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [195]}]}
VLLM = {"count": 2, "max_model_len": 4096, "tokens": [1, 2], "token_strs": None}


@pytest.mark.parametrize(
    ("body", "llamacpp", "vllm"),
    [
        ({"content": "ab"}, (False, True, False), (False, False)),
        ({"prompt": "ab"}, (True, True, False), (True, False)),
        ({"content": "ab", "add_special": True}, (True, True, False), (True, False)),
        ({"prompt": "ab", "add_special_tokens": False}, (False, True, False), (False, False)),
        ({"content": "ab", "with_pieces": True, "model": "m"}, (False, True, True), (False, True)),
        ({"prompt": "ab", "return_token_strs": True}, (True, True, True), (True, True)),
        ({"content": "", "parse_special": None}, (False, True, False), (False, False)),
    ],
)
def test_a_text_for_each_engine(
    body: dict[str, Any], llamacpp: tuple[bool, ...], vllm: tuple[bool, ...]
) -> None:
    text = body.get("content", body.get("prompt"))
    names = ("add_special", "parse_special", "with_pieces")
    asked = {"content": text, **dict(zip(names, llamacpp, strict=True))}
    assert tokenize_request(body, "llamacpp") == asked
    named = dict(zip(("add_special_tokens", "return_token_strs"), vllm, strict=True))
    assert tokenize_request(body, "vllm") == {"prompt": text, **named}


def test_special_tokens_as_text() -> None:
    body = {"content": "<s>", "parse_special": False}
    assert tokenize_request(body, "llamacpp")["parse_special"] is False
    with pytest.raises(TranslationError, match="'parse_special' is not supported by vllm"):
        tokenize_request(body, "vllm")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "'content' is missing. Send the text to tokenize."),
        ({"content": None}, "'content' is missing."),
        ({"content": ["a"]}, "'content' is invalid: a list. It must be a string."),
        ({"prompt": 1}, "'prompt' is invalid: a number."),
        ({"messages": []}, "'messages' is not supported at /tokenize. Send 'content' or 'prompt'."),
        ({"content": "a", "add_special": 1}, "'add_special' is invalid: a number."),
    ],
)
def test_a_body_that_is_none(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TranslationError, match=f"^{sentence}"):
        tokenize_request(body, "llamacpp")


def test_an_answer_has_the_keys_of_both() -> None:
    assert tokenize_answer(LLAMACPP, {"content": "ab"}) == {"tokens": [1, 2], "count": 2}
    assert tokenize_answer(VLLM, {"content": "ab"}) == {
        "tokens": [1, 2],
        "count": 2,
        "max_model_len": 4096,
    }
    pieces = {"tokens": PIECES["tokens"], "count": 2, "token_strs": ["a", [195]]}
    assert tokenize_answer(PIECES, {"content": "ab", "with_pieces": True}) == pieces
    assert tokenize_answer(PIECES, {"prompt": "ab", "return_token_strs": True}) == {
        "tokens": [1, 2],
        "count": 2,
        "token_strs": ["a", [195]],
    }
    strings = VLLM | {"token_strs": ["a", "b"]}
    assert tokenize_answer(strings, {"content": "ab", "with_pieces": True})["tokens"] == [
        {"id": 1, "piece": "a"},
        {"id": 2, "piece": "b"},
    ]
    assert tokenize_answer({"tokens": []}, {"content": ""}) == {"tokens": [], "count": 0}
    with pytest.raises(TranslationError, match="'tokens' is missing"):
        tokenize_answer({}, {"content": "ab"})


def test_texts_of_tokens() -> None:
    assert detokenize_request({"tokens": [1, 2.0], "model": "m"}) == {"tokens": [1, 2]}
    for answer in ({"content": "ab"}, {"prompt": "ab"}):
        assert detokenize_answer(answer) == {"content": "ab", "prompt": "ab"}
    assert detokenize_answer({"content": ""}) == {"content": "", "prompt": ""}
    for body, sentence in (
        ({}, "'tokens' is missing. Send a list of token ids."),
        ({"tokens": "a"}, "'tokens' is invalid: a string."),
        ({"tokens": [1, "a"]}, "'tokens.1' is invalid: a string. It must be a number."),
    ):
        with pytest.raises(TranslationError, match=f"^{sentence}"):
            detokenize_request(body)
    with pytest.raises(TranslationError, match="'content' is missing"):
        detokenize_answer({})
