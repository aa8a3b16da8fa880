"""Errors in the format of the API that a client asked."""

from __future__ import annotations

import pytest

from llm_provider.server.client_apis.error_formats import (
    anthropic_error,
    error_format,
    ollama_error,
    openai_error,
)

ERROR = {"message": "No.", "type": "x", "param": None, "code": "queue_full", "n_ctx": 3}


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/messages", anthropic_error),
        ("/v1/messages/count_tokens", anthropic_error),
        ("/v1/messages/batches", anthropic_error),
        ("/v1/messages2", openai_error),
        ("/api/chat", ollama_error),
        ("/api/nothing", ollama_error),
        ("/api", openai_error),
        ("/v1/chat/completions", openai_error),
        ("/", openai_error),
    ],
)
def test_the_format_of_a_path(path: str, form: object) -> None:
    assert error_format(path) is form


def test_bodies() -> None:
    assert openai_error(429, ERROR) == {"error": ERROR}
    assert ollama_error(429, ERROR) == {"error": "No."}
    assert ollama_error(429, {}) == {"error": "The request failed."}
    assert anthropic_error(429, ERROR, "id-1") == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": "No.",
            "details": {"n_ctx": 3, "error_code": "queue_full"},
        },
        "request_id": "id-1",
    }
