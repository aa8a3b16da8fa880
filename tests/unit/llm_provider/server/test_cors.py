"""Pages of other origins: preflights, headers of answers and of errors; off by default."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT
from llm_provider.server.dropped_header import DROPPED_HEADER

from ..fake import AUTH, FakeEngine, error_of, serve_api

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
PAGE = {"Origin": "https://chat.example"}
PREFLIGHT = {
    **PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang",
}


@pytest.fixture
async def page(llm: LlamaCpp, keys: Path) -> AsyncIterator[httpx.AsyncClient]:
    origins = "https://chat.example, http://localhost:3000"
    async with (
        serve_api(llm, keys, CHAT_API_CORS_ORIGINS=origins) as url,
        httpx.AsyncClient(base_url=url, headers=PAGE, timeout=60) as client,
    ):
        yield client


async def test_a_preflight_needs_no_key(page: httpx.AsyncClient, engine: FakeEngine) -> None:
    answer = await page.options(CHAT, headers=PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://chat.example"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"]
    assert {"authorization", "content-type", "x-stainless-lang"} <= set(allowed.split(", "))
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert engine.posts == []


async def test_another_origin_is_refused(page: httpx.AsyncClient) -> None:
    other = {"Origin": "https://other.example"}
    answer = await page.options(CHAT, headers=PREFLIGHT | other)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    answer = await page.post(CHAT, json=BODY, headers=AUTH | other)
    assert answer.status_code == 200  # which the browser keeps from the page
    assert "access-control-allow-origin" not in answer.headers


async def test_answers_and_errors_have_the_headers(
    page: httpx.AsyncClient, engine: FakeEngine, llm: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readable(answer: httpx.Response, status: int) -> None:
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == "https://chat.example"
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert set(exposed) == {"X-Request-Id", "Retry-After", "X-Should-Retry", DROPPED_HEADER}
        assert answer.headers["X-Request-Id"]

    readable(await page.post(CHAT, json=BODY), 401)
    for stream in (False, True):
        readable(await page.post(CHAT, json=BODY | {"stream": stream}, headers=AUTH), 200)
    readable(await page.post(CHAT, json={}, headers=AUTH), 400)
    readable(await page.post(CHAT, content=b" " * 5_000_000, headers=AUTH), 413)
    readable(await page.get("/nothing", headers=AUTH), 404)
    readable(await page.get(CHAT, headers=AUTH), 405)
    readable(await page.get("/health"), 200)

    async def broken(path: str, body: object) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(llm, "send", broken)
    readable(await page.post(CHAT, json=BODY, headers=AUTH), 500)


async def test_any_origin_where_all_are_allowed(llm: LlamaCpp, keys: Path) -> None:
    async with (
        serve_api(llm, keys, CHAT_API_CORS_ORIGINS="*") as url,
        httpx.AsyncClient(base_url=url, headers=PAGE, timeout=60) as client,
    ):
        assert (await client.options(CHAT, headers=PREFLIGHT)).status_code == 200
        answer = await client.post(CHAT, json=BODY, headers=AUTH)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_off_by_default(client: httpx.AsyncClient) -> None:
    answer = await client.options(CHAT, headers=PREFLIGHT)
    assert answer.status_code == 405
    assert error_of(answer)["message"] == f"OPTIONS {CHAT}: Method Not Allowed."
    for each in (answer, await client.post(CHAT, json=BODY, headers=PAGE)):
        assert not [name for name in each.headers if name.startswith("access-control")]


async def test_the_page_of_the_document(llm: LlamaCpp, keys: Path) -> None:
    async with (
        serve_api(llm, keys, CHAT_API_DOCS="1") as url,
        httpx.AsyncClient(base_url=url, timeout=60) as stranger,
    ):
        refused = await stranger.get("/docs")
        assert refused.status_code == 401
        assert "Basic" in refused.headers["WWW-Authenticate"]  # a browser asks for the key
        answer = await stranger.get("/docs", auth=("", AUTH["Authorization"].split()[1]))
        assert answer.status_code == 200
        assert "openapi.json" in answer.text


KEPT = ("", AUTH["Authorization"].split()[1])
"""The password that a browser keeps, and sends with the requests of any page."""


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("", "https://other.example", 403),
        ("*", "https://other.example", 403),
        ("https://chat.example", "https://other.example", 403),
        ("https://chat.example", "null", 403),
        ("https://chat.example", "https://chat.example", 200),
        ("", "{own}", 200),
    ],
)
async def test_which_pages_may_use_the_password_of_a_browser(
    llm: LlamaCpp, keys: Path, engine: FakeEngine, allowed: str, origin: str, status: int
) -> None:
    async with (
        serve_api(llm, keys, CHAT_API_CORS_ORIGINS=allowed) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        headers = {"Origin": origin.format(own=url), "Content-Type": "text/plain"}
        answer = await client.post(CHAT, content=json.dumps(BODY), headers=headers, auth=KEPT)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert engine.posts == []
            error = error_of(answer)
            assert error["code"] == "origin_not_allowed"
            assert f"A page of {origin} may not use the password" in error["message"]
            assert "Bearer KEY" in error["message"]
