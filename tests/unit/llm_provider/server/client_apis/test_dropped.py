"""Parameters that the engine does not get: named in a header of the answer, refused when strict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.cli.check import Wanted, check
from llm_provider.server.dropped_header import DROPPED_HEADER

from ...fake import AUTH, KEY, MODEL
from .engines import ENGINES, chat_api

MESSAGES = [{"role": "user", "content": "Hello"}]
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "openai": (
        "/v1/chat/completions",
        {"user": "ann"},
        "user",
    ),
    "anthropic": (
        "/v1/messages",
        {"max_tokens": 9, "service_tier": "auto"},
        "service_tier",
    ),
    "ollama": ("/api/chat", {"options": {"num_ctx": 99, "seed": 1}}, "options.num_ctx"),
}


async def post(url: str, path: str, further: dict[str, Any], stream: bool) -> httpx.Response:
    body = {"model": MODEL, "messages": MESSAGES, "stream": stream, **further}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.post(f"{url}{path}", json=body, headers=AUTH)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("client", REQUESTS)
async def test_the_answer_names_them(client: str, kind: str, stream: bool, keys: Path) -> None:
    path, further, dropped = REQUESTS[client]
    async with chat_api(kind, keys) as (engine, url):
        answer = await post(url, path, further, stream)
    assert answer.status_code == 200, answer.text
    assert answer.headers[DROPPED_HEADER] == dropped
    assert not {"user", "service_tier"} & engine.asked[-1].keys()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("client", REQUESTS)
async def test_nothing_dropped_nothing_named(client: str, stream: bool, keys: Path) -> None:
    path = REQUESTS[client][0]
    async with chat_api("llamacpp", keys) as (_, url):
        answer = await post(url, path, {"max_tokens": 9} if client == "anthropic" else {}, stream)
    assert answer.status_code == 200, answer.text
    assert DROPPED_HEADER not in answer.headers


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("client", REQUESTS)
async def test_strict_refuses_them(client: str, kind: str, keys: Path) -> None:
    path, further, dropped = REQUESTS[client]
    async with chat_api(kind, keys, strict=True) as (engine, url):
        answer = await post(url, path, further, False)
        assert answer.status_code == 400, answer.text
        assert f"'{dropped}' does not fit {kind}" in answer.text
        assert "which strict mode refuses. Leave it out." in answer.text
        assert engine.asked == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("client", REQUESTS)
async def test_strict_serves_what_has_none(
    client: str, kind: str, stream: bool, keys: Path
) -> None:
    """What a translation and the chat API add themselves is nothing that an engine ignores."""
    path = REQUESTS[client][0]
    further = {"max_tokens": 9} if client == "anthropic" else {}
    async with chat_api(kind, keys, strict=True) as (_, url):
        answer = await post(url, path, further, stream)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_strict_host_passes_the_check(kind: str, keys: Path) -> None:
    async with chat_api(kind, keys, strict=True) as (_, url):
        report = await check(url, KEY, Wanted(seconds=10))
    failed = [each for each in report.checks if not each.ok]
    assert [each for each in failed if "ignored" in each.seen] == []
    assert report.reachable
