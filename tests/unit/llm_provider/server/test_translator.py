"""A route of another API: translation there and back, its errors, its streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.chat_events import ChatEvents
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.routes import CHAT
from llm_provider.providers.support import CHATTING
from llm_provider.server.fields import Fields
from llm_provider.server.formats import JSON_LINES, OLLAMA
from llm_provider.server.route import Field, Route
from llm_provider.server.routes import ROUTES
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translator import Asked, Translator

from ..fake import ANSWER, AUTH, FakeEngine, error_of, serve_api, until

PATH = "/api/ask"


def event_of(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


class Shouting(Translator):
    """Asks a text, and answers in capitals, a line of JSON for each piece."""

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        super().__init__(asked, provider)
        text = self.body["ask"]
        if text == "untranslatable":
            raise TranslationError("ask.0", "'ask.0' is invalid.")
        self.body = {"messages": [{"role": "user", "content": text}], "seed": 1}
        self.headers = [(b"x-dropped", b"mood")]
        self._fails = text == "no answer"
        self._reader = ChatEvents()

    def whole(self, answer: Answer) -> bytes:
        self._check()
        return event_of({"said": answer.data["choices"][0]["message"]["content"].upper()})

    def feed(self, chunk: bytes) -> bytes:
        self._check()
        texts = [
            event["choices"][0]["delta"].get("content") or ""
            for event in self._reader.feed(chunk)
            if event.get("choices")
        ]
        return b"".join(event_of({"said": text.upper()}) for text in texts if text)

    def rest(self) -> bytes:
        return event_of({"done": True})

    def _check(self) -> None:
        if self._fails:
            raise TranslationError("choices", "The answer cannot be translated.")


def route(path: str = PATH, **more: Any) -> Route:
    return Route(
        path,
        CHATTING,
        Field("ask", {"type": "string"}, Fields.require_text),
        translator=Shouting,
        errors=OLLAMA,
        stream=JSON_LINES,
        **more,
    )


@pytest.fixture
async def other(
    llm: LlamaCpp, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setitem(ROUTES, PATH, route())

    openai = ROUTES[CHAT]
    shared = Route("/shared", CHATTING, openai.required, alternative=route("/shared"))
    monkeypatch.setitem(ROUTES, "/shared", shared)
    async with (
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        yield client


async def test_a_request_and_its_answer_are_translated(
    engine: FakeEngine, other: httpx.AsyncClient
) -> None:
    answer = await other.post(PATH, json={"ask": "Hello", "mood": "good"})
    assert answer.json() == {"said": ANSWER.upper()}
    assert answer.headers["X-Dropped"] == "mood"
    assert engine.asked[0]["messages"] == [{"role": "user", "content": "Hello"}]
    assert (engine.asked[0]["seed"], "mood" in engine.asked[0]) == (1, False)


async def test_a_stream_is_translated(engine: FakeEngine, other: httpx.AsyncClient) -> None:
    answer = await other.post(PATH, json={"ask": "Hello", "stream": True})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["X-Dropped"] == "mood"
    *pieces, last = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(piece["said"] for piece in pieces).strip() == ANSWER.upper()
    assert last == {"done": True}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "The body is not JSON: it ends too early."),
        (b'{"ask": 1}', 400, "'ask' must be a text."),
        (b'{"ask": "untranslatable"}', 400, "'ask.0' is invalid."),
        (b'{"ask": "x", "model": "gpt-5"}', 404, "The model 'gpt-5' is not served here; "),
        (b'{"ask": "no answer"}', 502, "The answer cannot be translated."),
    ],
)
async def test_errors_have_the_format_of_the_route(
    other: httpx.AsyncClient, body: bytes, status: int, message: str
) -> None:
    answer = await other.post(PATH, content=body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(message)


async def test_errors_before_the_route_have_it_too(other: httpx.AsyncClient) -> None:
    for answer in (
        await other.post(PATH, json={}, headers={"Authorization": "Bearer wrong"}),
        await other.get(PATH),
    ):
        assert set(answer.json()) == {"error"}
        assert answer.status_code in (401, 405)


async def test_a_failure_in_a_stream_has_it_too(other: httpx.AsyncClient) -> None:
    answer = await other.post(PATH, json={"ask": "no answer", "stream": True})
    assert answer.status_code == 200
    (line,) = answer.text.splitlines()
    assert json.loads(line) == {"error": "The answer cannot be translated."}


async def test_a_body_can_choose_another_route(
    engine: FakeEngine, other: httpx.AsyncClient
) -> None:
    answer = await other.post("/shared", json={"ask": "Hello"})
    assert answer.json() == {"said": ANSWER.upper()}
    refused = await other.post("/shared", json={"ask": 1})
    assert refused.json()["error"] == "'ask' must be a text."
    answer = await other.post("/shared", json={"messages": [{"role": "user", "content": "x"}]})
    assert answer.json()["choices"]
    assert error_of(await other.post("/shared", json={}))["param"] == "messages"


async def test_a_format_without_comments_gets_none(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROUTES, PATH, route())
    async with (
        serve_api(llm, keys, PARALLEL="1", CHAT_API_COMMENT_SECONDS="0.01") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        goes_on = engine.paused()
        body = {"ask": "Hello", "stream": True}
        tasks = [asyncio.create_task(client.post(PATH, json=body)) for _ in range(2)]
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.1)
        goes_on.set()
        for task in tasks:
            assert all(json.loads(line) for line in (await task).text.splitlines())
