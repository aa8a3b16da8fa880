"""The chat API over real sockets: clients that leave, or read slowly; request ids."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.routes import ROUTES

from ..fake import DONE, KEY, Exchange, FakeEngine, error_of, event, until

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


# Clients that leave, or read slowly.


async def endless(exchange: Exchange) -> None:
    if exchange.body["stream"]:
        await exchange.begin_stream()
    while True:
        if exchange.body["stream"]:
            await exchange.chunk(event("on "))
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGE])
async def test_a_client_that_leaves_stops_the_engine_and_frees_its_slot(
    engine: FakeEngine, client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    engine.on(CHAT, endless)
    body = POSTS[path] | {"stream": stream}
    for _ in range(3):  # more often than there are slots
        engine.left.clear()
        if stream:
            async with client.stream("POST", path, json=body) as answer:
                await anext(answer.aiter_raw())
        else:
            request = asyncio.create_task(client.post(path, json=body))
            await until(lambda: engine.running == 1)
            request.cancel()
        await asyncio.wait_for(engine.left.wait(), 20)
    await until(lambda: engine.running == 0)
    engine.on(CHAT, engine.chat)
    assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_client_that_leaves_while_it_sends(
    engine: FakeEngine, api: str, client: httpx.AsyncClient
) -> None:
    port = int(api.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert engine.asked == []
    assert 'outcome="client_left"' in (await client.get("/metrics")).text


async def test_a_client_that_reads_slowly_holds_the_engine_up_and_loses_nothing(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    whole = event("x" * 100_000) * 400 + DONE
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin_stream()
        for start in range(0, len(whole), 100_000):
            await exchange.chunk(whole[start : start + 100_000])
            sent = start
        await exchange.chunk(b"")

    engine.on(CHAT, flood)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        received = bytearray(await anext(chunks))
        before = -1
        while sent != before:  # until it has to wait
            before = sent
            await asyncio.sleep(0.2)
        assert sent < len(whole) * 3 / 4
        async for chunk in chunks:
            received += chunk
    assert bytes(received) == whole


async def test_a_client_that_stalls_is_gone(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_provider.server.stall_timer.STALL_SECONDS", 0.2)

    async def flood(exchange: Exchange) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.chunk(event("x" * 100_000))

    engine.on(CHAT, flood)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        await anext(chunks)
        await asyncio.wait_for(engine.left.wait(), 5)
        del chunks
    metrics = (await client.get("/metrics")).text
    assert 'outcome="client_stalled"' in metrics
    assert "edge_llm_requests_in_flight 0.0" in metrics


# The rest.


async def test_request_ids(client: httpx.AsyncClient, api: str) -> None:
    first, second = [(await client.get("/health")).headers["X-Request-Id"] for _ in range(2)]
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second
    for stream in (False, True):
        headers = {"X-Request-Id": f"mine-{stream}"}
        answer = await client.post(CHAT, json=BODY | {"stream": stream}, headers=headers)
        assert answer.headers.get_list("X-Request-Id") == [f"mine-{stream}"]
    answer = await client.get("/v1/nothing", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    for odd in ("not one\tword", "x" * 65, "", "caf\xe9"):
        answer = await client.get("/health", headers={b"X-Request-Id": odd.encode("latin-1")})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    async with httpx.AsyncClient(base_url=api, timeout=60) as stranger:
        assert (await stranger.get("/ready")).headers["X-Request-Id"]


async def test_a_defect_is_answered_without_its_text(
    engine: FakeEngine, llm: LlamaCpp, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(path: str, body: object) -> dict[str, Any]:
        raise RuntimeError("a text that may quote the request")

    monkeypatch.setattr(llm, "send", broken)
    for path, body in ((CHAT, BODY), (MESSAGE, {"message": "Hello"})):
        answer = await client.post(path, json=body, headers={"X-Request-Id": "mine-3"})
        assert answer.status_code == 500
        assert error_of(answer) == {
            "message": "The chat API failed; its log tells why under request id mine-3.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    assert "edge_llm_requests_in_flight 0.0" in (await client.get("/metrics")).text


async def test_the_openapi_document(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = document["paths"]
    assert {path for path, methods in paths.items() if "post" in methods} == {*ROUTES, "/api/show"}
    schemes = document["components"]["securitySchemes"]
    for path, methods in paths.items():
        for operation in methods.values():
            needed = [name for one in operation.get("security", []) for name in one]
            assert bool(needed) == (path != "/health")
            assert set(needed) <= set(schemes)
            assert "422" not in operation["responses"]
    assert schemes == {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "password": {"type": "http", "scheme": "basic"},
    }
    # Any one of them is enough.
    assert paths["/ready"]["get"]["security"] == [{"key": []}, {"header": []}, {"password": []}]
