"""The chat API over real sockets: the engine's refusals and failures, and defects."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT

from ..fake import DONE, Exchange, FakeEngine, error_of, event

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES}


MESSAGE = "/api/chat"


# The engine's refusals and failures; test_faults.py has those on the wire.


@pytest.mark.parametrize(
    ("status", "error", "expected", "code", "message"),
    [
        (400, {"message": "too long", "code": "ctx", "param": "n"}, 400, "ctx", "too long"),
        (400, {"message": "too long", "code": 400, "param": 1}, 400, None, "too long"),
        (400, {"message": '{"error": {"message": "inner"}}'}, 400, None, "inner"),
        (422, {"message": "no"}, 400, None, "no"),
        (413, {"message": "no"}, 413, None, "no"),
        (503, {"message": "busy"}, 503, "engine_busy", "refused with status 503: busy"),
        (429, {"message": "busy"}, 503, "engine_busy", "refused with status 429: busy"),
        (500, {"message": "jinja"}, 502, "engine_error", "refused with status 500: jinja"),
        (401, {"message": "key"}, 502, "engine_error", "refused with status 401: key"),
        (500, {"message": "x is not supported"}, 400, "not_supported_by_engine", "supported"),
        (501, {"message": "none"}, 501, "not_supported_by_engine", f"has no {CHAT} here: none"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_refusal(
    engine: FakeEngine,
    client: httpx.AsyncClient,
    status: int,
    error: dict[str, Any],
    expected: int,
    code: str | None,
    message: str,
    stream: bool,
) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": error}, status))
    for path, body in ((CHAT, BODY), (MESSAGE, {"message": "Hello"})):
        answer = await client.post(path, json=body | {"stream": stream})
        assert answer.status_code == expected
        assert ("Retry-After" in answer.headers) == (expected == 503)
        problem = error_of(answer)
        assert problem["code"] == code
        assert problem["message"].endswith(message)
        assert problem["param"] in (None, "n", "messages")


async def test_an_engines_words_may_be_any_text(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    """It may quote what it was sent, half a character included."""
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "not \ud800, café"}}, 400))
    answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 400
    assert error_of(answer)["message"] == "not \ud800, café"


async def test_a_stream_that_breaks_off_says_so(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel") + event("lo")[:-9])

    engine.on(CHAT, cut)
    raw = (await client.post(CHAT, json=BODY | {"stream": True})).content
    assert raw.startswith(event("Hel") + event("lo")[:-9] + b"\n\n")
    assert DONE not in raw
    last = json.loads(raw.rstrip().rsplit(b"data: ", 1)[1])
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert "broke the connection" in last["error"]["message"]
