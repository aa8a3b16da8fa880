"""/tokenize and /detokenize in llama.cpp's and vLLM's format, on either engine.

    llama.cpp  {"content": ..., "add_special": false, "with_pieces": false}
               {"tokens": [1, 2]}, or [{"id": 1, "piece": "a"}]; {"tokens": [1]}, {"content": "a"}
    vLLM       {"prompt": ..., "add_special_tokens": true, "return_token_strs": false}
               {"count": 2, "tokens": [1, 2], "token_strs": ["a", "b"]}; {"prompt": "ab"}

A client writes one of them, and its answer has the keys of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import as_flag, as_integer, as_list, as_text

_LLAMACPP = ("content", "add_special", "parse_special", "with_pieces")
_VLLM = ("prompt", "add_special_tokens", "return_token_strs")


def tokenize_request(body: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """Return a body of /tokenize as an engine reads it. Raises TranslationError."""
    for name in body:
        if name not in (*_LLAMACPP, *_VLLM, "model"):
            raise TranslationError(
                name, f"'{name}' is not supported at /tokenize. Send 'content' or 'prompt'."
            )
    name = "content" if "content" in body else "prompt"
    if body.get(name) is None:
        raise TranslationError("content", "'content' is missing. Send the text to tokenize.")
    text = as_text(body[name], name)
    special = _flag(body, "add_special", "add_special_tokens", default=name == "prompt")
    pieces = wants_pieces(body)
    if engine == "vllm":
        if body.get("parse_special") is False:
            raise TranslationError(
                "parse_special", "'parse_special' is not supported by vllm as false. Leave it out."
            )
        return {"prompt": text, "add_special_tokens": special, "return_token_strs": pieces}
    parse = body.get("parse_special")
    parse = True if parse is None else as_flag(parse, "parse_special")
    return {
        "content": text,
        "add_special": special,
        "parse_special": parse,
        "with_pieces": pieces,
    }


def wants_pieces(body: Mapping[str, Any]) -> bool:
    """Return whether a client wants each token's text. Raises TranslationError."""
    return _flag(body, "with_pieces", "return_token_strs", default=False)


def tokenize_answer(answer: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to `body`. Raises TranslationError for an answer that has no tokens."""
    tokens, texts = _tokens(as_list(answer.get("tokens"), "tokens"))
    if isinstance(answer.get("token_strs"), list):
        texts = answer["token_strs"]
    translated: dict[str, Any] = {"tokens": tokens, "count": len(tokens)}
    if size := answer.get("max_model_len"):
        translated["max_model_len"] = size
    if wants_pieces(body):
        translated["token_strs"] = texts
        if body.get("with_pieces"):
            pairs = zip(tokens, texts, strict=True)
            translated["tokens"] = [{"id": token, "piece": piece} for token, piece in pairs]
    return translated


def detokenize_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body of /detokenize, which both engines read alike. Raises TranslationError."""
    if body.get("tokens") is None:
        raise TranslationError("tokens", "'tokens' is missing. Send a list of token ids.")
    tokens = as_list(body["tokens"], "tokens")
    return {"tokens": [as_integer(token, f"tokens.{n}") for n, token in enumerate(tokens)]}


def detokenize_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text under the names of both. Raises TranslationError for an answer without."""
    found = answer.get("content")
    text = as_text(answer.get("prompt") if found is None else found, "content")
    return {"content": text, "prompt": text}


def _tokens(entries: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the ids, and the pieces where llama.cpp gives them."""
    if entries and isinstance(entries[0], dict):
        return [entry.get("id") for entry in entries], [entry.get("piece") for entry in entries]
    return entries, []


def _flag(body: Mapping[str, Any], one: str, other: str, *, default: bool) -> bool:
    name = one if body.get(one) is not None else other
    return default if body.get(name) is None else as_flag(body[name], name)
