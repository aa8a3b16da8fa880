"""Errors in the format of the API that a client asked."""

from __future__ import annotations

import json

import pytest

from llm_provider.http.sse import EventParser
from llm_provider.server.formats import (
    ANTHROPIC,
    OLLAMA,
    OPENAI,
    ErrorFormat,
    error_format,
)

ERROR = {"message": "No.", "type": "x", "param": None, "code": "queue_full", "n_ctx": 3}


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/messages", ANTHROPIC),
        ("/v1/messages/count_tokens", ANTHROPIC),
        ("/v1/messages/batches", ANTHROPIC),
        ("/v1/messages2", OPENAI),
        ("/api/chat", OLLAMA),
        ("/api/nothing", OLLAMA),
        ("/api", OLLAMA),
        ("/apis", OPENAI),
        ("/v1/chat/completions", OPENAI),
        ("/", OPENAI),
    ],
)
def test_the_format_of_a_path(path: str, form: ErrorFormat) -> None:
    assert error_format(path) is form


def test_bodies() -> None:
    assert OPENAI.body(429, ERROR, "id-1") == {"error": ERROR}
    assert OLLAMA.body(429, ERROR, "id-1") == {"error": "No."}
    assert OLLAMA.body(429, {}, "id-1") == {"error": "The request failed."}
    assert ANTHROPIC.body(429, ERROR, "id-1") == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": "No.",
            "details": {"n_ctx": 3, "error_code": "queue_full"},
        },
        "request_id": "id-1",
    }


@pytest.mark.parametrize("form", [OPENAI, ANTHROPIC, OLLAMA])
def test_schemas_have_what_bodies_have(form: ErrorFormat) -> None:
    assert set(form.schema["required"]) == set(form.body(400, ERROR, "id-1"))
    assert set(form.schema["properties"]) == set(form.schema["required"])


def test_events() -> None:
    body = OPENAI.body(502, ERROR, "id-1")
    parser = EventParser()
    parser.feed(b'data: {"cut')
    # Behind an event that was cut off, it is one of its own.
    assert json.loads(parser.feed(OPENAI.event(body))[-1]) == body
    body = ANTHROPIC.body(502, ERROR, "id-1")
    head, data, *rest = ANTHROPIC.event(body).decode().split("\n")
    assert (head, rest) == ("event: error", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"type": "error", "error": body["error"]}
    line = OLLAMA.event(OLLAMA.body(502, ERROR, "id-1"))
    assert line.endswith(b"}\n")
    assert json.loads(line) == {"error": "No."}
