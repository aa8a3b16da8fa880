"""What an engine says when it refuses, in any of the shapes that engines use."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

_WORDS = 500


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
        words = inner["message"]
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"status {status}"
    return str(words)[:_WORDS] or phrase, error


def error_of(answer: object) -> dict[str, Any]:
    """Return the error object of an answer; empty where it has none."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def decode(raw: bytes) -> str:
    """Return bytes as text, whatever they hold."""
    return raw.decode(errors="replace")
