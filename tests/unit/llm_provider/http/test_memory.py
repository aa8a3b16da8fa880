"""What an exchange leaves in memory."""

from __future__ import annotations

import gc
import weakref

import httpx

from llm_provider.http.client import HTTPClient


async def test_a_request_is_freed_with_its_exchange_without_a_search_for_cycles() -> None:
    seen: list[weakref.ref[httpx.Request]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(weakref.ref(request))
        return httpx.Response(200, stream=httpx.ByteStream(b"answer"))

    client = HTTPClient("http://127.0.0.1:1", transport=httpx.MockTransport(answer))
    gc.disable()
    try:
        async with await client.open("POST", "/", b"body") as exchange:
            assert await exchange.read(6) == b"answer"
        assert seen[0]() is None, "the request, and its body, stay in memory"
    finally:
        gc.enable()
    await client.close()
