"""The engine's own metrics, through the chat API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.selection import PROVIDERS
from llm_provider.server import engine_metrics
from llm_provider.server.application import create_app

from ..fake import (
    AUTH,
    METRICS,
    METRICS_TYPE,
    MODEL,
    FakeEngine,
    error_of,
    serve_api,
    until,
)

PATH = "/metrics/engine"


async def test_they_are_passed_on_as_they_are(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.get(PATH)
    assert (answer.status_code, answer.content) == (200, METRICS)
    assert answer.headers["Content-Type"] == METRICS_TYPE
    assert engine.paths()[-1] == "/metrics"


async def test_a_key_is_needed(api: str, engine: FakeEngine) -> None:
    async with httpx.AsyncClient(base_url=api, timeout=60) as stranger:
        answer = await stranger.get(PATH)
    assert answer.status_code == 401
    assert "/metrics" not in engine.paths()


@asynccontextmanager
async def asked(kind: str, keys: Path) -> AsyncIterator[tuple[FakeEngine, httpx.Response]]:
    """The answer of a chat API before an engine of another kind."""
    async with (
        FakeEngine(kind).serving() as engine,
        PROVIDERS[kind](model=MODEL, base_url=engine.url, timeout=2) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        yield engine, await client.get(PATH)


async def test_those_of_vllm(keys: Path) -> None:
    async with asked("vllm", keys) as (_, answer):
        assert (answer.status_code, answer.content) == (200, METRICS)


async def test_ollama_has_none(keys: Path) -> None:
    async with asked("ollama", keys) as (engine, answer):
        assert "/metrics" not in engine.paths()
    assert answer.status_code == 501
    assert error_of(answer) == {
        "message": "ollama does not offer metrics. It is served where the engine is llamacpp or"
        " vllm.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_supported_by_engine",
    }


async def test_an_engine_that_was_started_without_them(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    words = "This server does not support metrics endpoint. Start it with `--metrics`"
    error = {"code": 501, "message": words, "type": "not_supported_error"}
    engine.on("/metrics", lambda x: x.answer({"error": error}, 501))
    answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (501, "not_supported_by_engine")
    assert words in error_of(answer)["message"]


async def test_an_engine_that_loads(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.loading = True
    answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "engine_not_ready")
    assert answer.headers["Retry-After"] == "5"


async def test_a_silent_engine_has_a_time_limit(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_metrics, "SECONDS", 0.2)
    goes_on = engine.paused("/metrics")
    answer = await client.get(PATH)
    goes_on.set()
    assert (answer.status_code, error_of(answer)["code"]) == (504, "engine_timeout")


async def test_their_size_has_a_limit(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_metrics, "MOST_BYTES", len(METRICS) - 1)
    answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (502, "engine_error")
    assert f"more than {len(METRICS) - 1} bytes" in error_of(answer)["message"]
    monkeypatch.setattr(engine_metrics, "MOST_BYTES", len(METRICS))
    assert (await client.get(PATH)).status_code == 200


async def test_what_is_no_text_is_not_passed_on(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.on("/metrics", lambda x: x.answer(b"<script>", kind="text/html"))
    answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (502, "engine_error")
    assert "answered /metrics with text/html, not text/plain" in error_of(answer)["message"]


async def test_the_engine_is_asked_once_at_a_time(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    goes_on = engine.paused("/metrics")
    asking = [asyncio.create_task(client.get(PATH)) for _ in range(5)]
    await until(lambda: engine.paths().count("/metrics") == 1)
    # One of those who ask leaves: the others get the answer.
    asking.pop(0).cancel()
    goes_on.set()
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert engine.paths().count("/metrics") == 1
    assert (await client.get(PATH)).status_code == 200
    assert engine.paths().count("/metrics") == 2


def test_the_route_is_described(keys: Path) -> None:
    described = create_app({"CHAT_API_KEYS_FILE": str(keys), "LLM_MODEL": "smoke"}).openapi()
    operation = described["paths"][PATH]["get"]
    assert set(operation["responses"]) == {"200", "401", "501", "502", "503", "504"}
    assert list(operation["responses"]["200"]["content"]) == ["text/plain"]
    assert operation["security"]
