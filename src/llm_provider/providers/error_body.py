"""What an engine says when it refuses, in any of the shapes that engines use."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

_WORDS = 500
# llama.cpp (which Ollama runs), then vLLM's of several versions.
_PROMPT = (
    r"request \((\d+) tokens\) exceeds the available context",
    r"(\d+) (?:input tokens|in the messages|in the prompt)",
    r"prompt \((?:total )?length (\d+)\)",
)
_CONTEXT = (
    r"the available context size \((\d+) tokens\)",
    r"context length is (?:only )?(\d+) tokens",
    r"maximum model length of (\d+)",
    r"\(context length (\d+)\)",
)
_NO_FIGURES = ("exceeds the available context size", "input length exceeds the context length")


def read_error(status: int, raw: bytes, answer: object) -> tuple[str, dict[str, Any]]:
    """Return the engine's own message and its error object.

    `answer` is what `raw` holds as JSON, or None.
    """
    error = error_of(answer)
    words = error.get("message") or error.get("detail") or decode(raw).strip()
    # Ollama passes on what its runner said as JSON inside its own message.
    while isinstance(words, str) and words.startswith("{"):
        try:
            inner = error_of(json.loads(words))
        except (ValueError, RecursionError):
            break
        if not inner.get("message"):
            break
        words, error = inner["message"], error | inner
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"status {status}"
    return str(words)[:_WORDS] or phrase, error


def context_overflow(words: str, error: dict[str, Any]) -> dict[str, int] | None:
    """Return the figures of a refusal because the context is too small for a request.

    They have llama.cpp's names, `n_prompt_tokens` and `n_ctx`, as far as the engine tells them.
    None for any other refusal.
    """
    figures = {"n_prompt_tokens": _number(_PROMPT, words), "n_ctx": _number(_CONTEXT, words)}
    if (
        error.get("type") != "exceed_context_size_error"
        and error.get("code") != "context_length_exceeded"
        and figures["n_ctx"] is None
        and not any(phrase in words for phrase in _NO_FIGURES)
    ):
        return None
    figures |= {name: error[name] for name in figures if isinstance(error.get(name), int)}
    return {name: number for name, number in figures.items() if number is not None}


def _number(patterns: tuple[str, ...], words: str) -> int | None:
    found = next((match for each in patterns if (match := re.search(each, words))), None)
    return int(found[1]) if found else None


def error_of(answer: object) -> dict[str, Any]:
    """Return the error object of an answer; empty where it has none."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def decode(raw: bytes) -> str:
    """Return bytes as text, whatever they hold."""
    return raw.decode(errors="replace")
