"""The format of errors, by the path that a client asked for: each API has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_provider.server.client_apis import anthropic
from llm_provider.server.translations import anthropic_errors, ollama_response

ErrorFormat = Callable[[int, Mapping[str, Any], str | None], dict[str, Any]]
"""From HTTP status, OpenAI's error object and request id to a body."""

_OLLAMA = "/api/"


def openai_error(
    status: int, error: Mapping[str, Any], request_id: str | None = None
) -> dict[str, Any]:
    """Return the body of an error in OpenAI's format: message, type, param, code, figures."""
    return {"error": dict(error)}


def ollama_error(
    status: int, error: Mapping[str, Any], request_id: str | None = None
) -> dict[str, Any]:
    """Return the body of an error in Ollama's format, which is a text."""
    return dict(ollama_response.error_body(str(error.get("message") or "The request failed.")))


anthropic_error: ErrorFormat = anthropic_errors.error_body


def error_format(path: str) -> ErrorFormat:
    """Return the format of errors for a path, known or not.

    It counts wherever the body is not known (yet): /api/chat's own `{"message": ...}`, whose errors
    are in OpenAI's format, is told from Ollama's by the body.
    """
    if path == anthropic.MESSAGES or path.startswith(f"{anthropic.MESSAGES}/"):
        return anthropic_error
    return ollama_error if path.startswith(_OLLAMA) else openai_error
