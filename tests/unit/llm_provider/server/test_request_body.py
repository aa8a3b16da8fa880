"""The chat API over real sockets: requests that are none."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.limits import Limits

from ..fake import FakeEngine, error_of

MAX_BODY_BYTES = Limits.max_body_bytes


MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES}


MESSAGE = "/api/chat"


POSTS = {
    CHAT: BODY,
    COMPLETIONS: {"prompt": "Hello"},
    EMBEDDINGS: {"input": "Hello"},
    RESPONSES: {"input": "Hello"},
    MESSAGE: {"message": "Hello"},
}


# Requests that are none.

LIST = "'messages' must be a list of at least one message."


TEXT = "must be a text or a list."


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (CHAT, b"", "The body is not JSON"),
        (CHAT, b"{", "The body is not JSON"),
        (CHAT, b"\xff\xfe{", "The body is not UTF-8"),
        (CHAT, b'{"messages": [{}], "temperature": NaN}', "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "temperature": -Infinity}', "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "temperature": 1e999}', "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "n": ' + b"9" * 5000 + b"}", "The body is not JSON: a number"),
        (CHAT, b'{"a": ' + b"[" * 100_000, "The body is nested too deeply."),
        (CHAT, b'{"messages": [{}], "user": "\\ud800"}', "The body is not JSON: half a pair of"),
        (CHAT, b"[]", "The body must be a JSON object."),
        (CHAT, b'"messages"', "The body must be a JSON object."),
        (CHAT, b"{}", LIST),
        (CHAT, b'{"messages": []}', LIST),
        (CHAT, b'{"messages": {}}', LIST),
        (CHAT, b'{"messages": ["Hello"]}', LIST),
        (CHAT, b'{"messages": [{}], "model": 1}', "'model' must be a string."),
        (CHAT, b'{"messages": [{}], "stream": "yes"}', "'stream' must be true or false."),
        (COMPLETIONS, b'{"prompt": 1}', f"'prompt' {TEXT}"),
        (COMPLETIONS, b'{"prompt": ""}', f"'prompt' {TEXT}"),
        (EMBEDDINGS, b"{}", f"'input' {TEXT}"),
        (RESPONSES, b'{"input": {}}', f"'input' {TEXT}"),
        (MESSAGE, b'{"message": ["Hello"]}', "'message' must be a text."),
        (MESSAGE, b'{"message": ""}', "'message' must be a text."),
        (MESSAGE, b'{"message": "Hello", "system": 1}', "'system' must be a string."),
    ],
)
async def test_bodies_that_are_no_requests(
    engine: FakeEngine, client: httpx.AsyncClient, path: str, content: bytes, message: str
) -> None:
    answer = await client.post(path, content=content)
    assert answer.status_code == 400
    assert error_of(answer)["message"].startswith(message)
    assert not engine.posts


async def test_any_text_reaches_the_engine(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    for content, text in (
        (b'"\\u0000"', "\0"),
        ('"café 東京 🚲"'.encode(), "café 東京 🚲"),
        ('"café 東京 🚲"'.encode("ascii", "backslashreplace").replace(b"U000", b"u"), None),
    ):
        body = b'{"messages": [{"role": "user", "content": ' + content + b"}]}"
        answer = await client.post(CHAT, content=body)
        if text is not None:
            assert answer.status_code == 200, answer.text
            assert engine.asked[-1]["messages"][0]["content"] == text


@pytest.mark.parametrize("depth", [*range(150, 1000, 50)])
async def test_deep_bodies(engine: FakeEngine, client: httpx.AsyncClient, depth: int) -> None:
    """They reach the engine, or are refused as what they are; never a failure of this API."""
    deep = b"[" * depth + b"]" * depth
    answer = await client.post(CHAT, content=b'{"messages": [{}], "deep": ' + deep + b"}")
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert error_of(answer)["message"] == "The body is nested too deeply."
        assert CHAT not in engine.paths()
    else:
        assert json.dumps(engine.asked[0]["deep"]).encode() == deep


async def test_large_bodies(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    def body(size: int) -> bytes:
        return json.dumps(BODY).encode().ljust(size)

    assert (await client.post(CHAT, content=body(MAX_BODY_BYTES))).status_code == 200

    async def parts() -> Any:
        for _ in range(10):
            yield body(MAX_BODY_BYTES // 5)

    for content in (body(MAX_BODY_BYTES + 1), body(7 * MAX_BODY_BYTES), parts()):
        before = len(engine.asked)
        answer = await client.post(CHAT, content=content)
        assert answer.status_code == 413
        assert error_of(answer)["code"] == "body_too_large"
        assert len(engine.asked) == before


async def test_paths_and_methods_that_are_not(client: httpx.AsyncClient) -> None:
    for path in ("/v1/nothing", "/", "/docs", "/redoc", "/v1/chat/completions/x"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert error_of(answer)["message"] == f"GET {path}: Not Found."
    for path in POSTS:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        told = answer.json()["error"] if path == MESSAGE else error_of(answer)["message"]
        assert told == f"GET {path}: Method Not Allowed."
