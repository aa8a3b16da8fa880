"""Requests that are refused before their bodies are read: clients can read why."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT

from ..fake import AUTH, KEY, FakeEngine, error_of, serve_api, until

MIB = 1024 * 1024


def head(*lines: str, key: str = KEY) -> bytes:
    start = (f"POST {CHAT} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *lines)
    return "\r\n".join((*start, "", "")).encode()


async def connect(api: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(api.rpartition(":")[2]))


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, Any]]:
    """The head of an answer, and the error in its body."""
    start = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = re.search(rb"content-length: (\d+)", start)
    assert length is not None
    return start, json.loads(await reader.readexactly(int(length[1])))["error"]


@pytest.mark.parametrize(
    ("key", "size", "status", "code"),
    [("wrong", 3 * MIB, 401, "invalid_api_key"), (KEY, 6 * MIB, 413, "body_too_large")],
)
async def test_the_answer_is_there_before_the_body_and_after_it(
    engine: FakeEngine, api: str, key: str, size: int, status: int, code: str
) -> None:
    """For clients that read while they send, and for those that send everything first."""
    reader, writer = await connect(api)
    writer.write(head(f"Content-Length: {size}", key=key))
    start, error = await answer_of(reader)
    assert start.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close" in start
    assert error["code"] == code
    writer.write(b"x" * size)
    await writer.drain()
    assert await asyncio.wait_for(reader.read(), 10) == b""  # and then it is closed
    writer.close()

    reader, writer = await connect(api)
    writer.write(head(f"Content-Length: {size}", key=key) + b"x" * size)
    await writer.drain()
    _, error = await answer_of(reader)
    assert error["code"] == code
    writer.close()
    assert engine.posts == []


async def test_a_client_that_waits_to_be_asked_is_not_asked(api: str) -> None:
    reader, writer = await connect(api)
    writer.write(head(f"Content-Length: {6 * MIB}", "Expect: 100-continue"))
    start, error = await answer_of(reader)
    assert start.startswith(b"HTTP/1.1 413 ")
    assert error["message"] == f"The body has {6 * MIB} bytes; at most {4 * MIB} are accepted."
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_client_that_waits_to_be_asked_and_may_send_is_asked(
    engine: FakeEngine, api: str
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
    reader, writer = await connect(api)
    writer.write(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    start = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert start.startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert len(engine.asked) == 1


async def test_a_body_without_end_is_not_read_for_ever(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_provider.server.refusal.DISCARD_BYTES", MIB)
    reader, writer = await connect(api)
    writer.write(head("Transfer-Encoding: chunked", key="wrong"))
    _, error = await answer_of(reader)
    assert error["code"] == "invalid_api_key"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with pytest.raises((ConnectionError, TimeoutError)):
        async with asyncio.timeout(20):
            while True:
                writer.write(chunk)
                await writer.drain()
    writer.close()


async def test_a_slow_rest_is_not_waited_for(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_provider.server.refusal.DISCARD_SECONDS", 0.1)
    reader, writer = await connect(api)
    writer.write(head("Content-Length: 1000", key="wrong"))
    await answer_of(reader)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_small_body_leaves_the_connection_open(api: str) -> None:
    reader, writer = await connect(api)
    for size in (2, 65536, 2):
        writer.write(head(f"Content-Length: {size}", key="wrong") + b"x" * size)
        start, error = await answer_of(reader)
        assert (error["code"], b"connection: close" in start) == ("invalid_api_key", False)
    writer.close()


async def test_a_body_that_was_read_leaves_the_connection_open(api: str) -> None:
    reader, writer = await connect(api)
    for _ in range(3):
        writer.write(head("Content-Length: 2") + b"{}")
        start, error = await answer_of(reader)
        assert start.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" not in start
        assert error["param"] == "messages"
    for _ in range(3):
        writer.write(
            f"GET /v1/models/none HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode()
        )
        start, error = await answer_of(reader)
        assert start.startswith(b"HTTP/1.1 404 ")
        assert error["code"] == "model_not_found"
    writer.close()


@pytest.fixture
async def strict(llm: LlamaCpp, keys: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A chat API with small limits for bodies."""
    async with (
        serve_api(
            llm,
            keys,
            CHAT_API_BODY_SECONDS="0.3",
            CHAT_API_MAX_BODY_BYTES="1000",
            CHAT_API_MAX_QUEUED_BODY_BYTES="2000",
        ) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        yield client


async def test_a_slow_body_is_refused(engine: FakeEngine, strict: httpx.AsyncClient) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" "
            await asyncio.sleep(0.1)

    answer = await strict.post(CHAT, content=slow())
    assert answer.status_code == 408
    error = error_of(answer)
    assert error["code"] == "body_timeout"
    assert re.fullmatch(
        r"The body did not arrive within 0\.3 s: [1-4] bytes did\.", error["message"]
    )
    assert engine.posts == []


async def test_bodies_that_find_no_memory_are_refused(
    engine: FakeEngine, strict: httpx.AsyncClient
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 900}]}).encode()
    goes_on = engine.paused()
    tasks = [asyncio.create_task(strict.post(CHAT, content=body)) for _ in range(3)]
    # One key gets all but one body's memory, which the held one has.
    await until(lambda: sum(task.done() for task in tasks) == 2, "two refusals")
    refused = next(task.result() for task in tasks if task.done())
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    error = error_of(refused)
    assert (error["code"], error["type"]) == ("body_memory_full", "server_error")
    assert error["message"].startswith("The bodies of other requests took the memory for bodies, ")
    goes_on.set()
    statuses = sorted([(await task).status_code for task in tasks])
    assert statuses == [200, 503, 503]
    other = {"Authorization": "Bearer key-two-of-the-tests"}
    assert (await strict.post(CHAT, content=body, headers=other)).status_code == 200
