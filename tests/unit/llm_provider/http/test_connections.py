"""When connections are made and closed, with each transport."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import ConnectError, ConnectionLost, ReadTimeout
from llm_provider.http.settings import Timeouts

from .conftest import MakeClient
from .server import BODY, CHUNKED, Connection, Server, chunk, response, sends, stays, until

AT_ONCE = 1.0
"""Seconds that count as at once on a busy machine; limits in these tests are 20."""


async def gone(server: Server, number: int = 0) -> None:
    await asyncio.wait_for(server.connections[number].gone.wait(), AT_ONCE)


async def test_each_request_has_its_own_connection(server: Server, client: HTTPClient) -> None:
    """A kept connection may be closed by the server at any time: a request in it is lost."""
    server.handler = stays(response(BODY, "Connection: keep-alive"))
    for number in range(5):
        exchange = await client.open("GET" if number % 2 else "POST", "/v1/x")
        assert await exchange.read(99) == BODY
        await exchange.close()
        await gone(server, number)
    assert (len(server.connections), len(server.requests)) == (5, 5)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("reset", [False, True])
async def test_nothing_is_sent_twice(
    server: Server, client: HTTPClient, method: str, reset: bool
) -> None:
    server.handler = Connection.reset if reset else sends()
    for number in range(1, 4):
        with pytest.raises(ConnectionLost):
            await client.open(method, "/v1/x", b"{}" if method in ("POST", "PUT") else None)
        assert (len(server.connections), len(server.requests)) == (number, number)
    await asyncio.sleep(0.1)
    assert len(server.connections) == 3


async def test_many_at_a_time(server: Server, client: HTTPClient) -> None:
    """As many connections as requests: none waits for another."""
    server.handler = stays(CHUNKED + chunk(b"x"))
    exchanges = await asyncio.gather(*(client.open("POST", "/v1/x", b"{}") for _ in range(150)))
    assert len(server.requests) == 150
    await asyncio.gather(*(exchange.close() for exchange in exchanges))
    await asyncio.gather(*(gone(server, number) for number in range(150)))


@pytest.mark.parametrize(
    "sent", [[], [b"HTTP/1.1 2"], [CHUNKED], [CHUNKED + chunk(b"Hel")]], ids=lambda sent: str(sent)
)
async def test_a_cancelled_request_closes_its_connection(
    server: Server, client: HTTPClient, sent: list[bytes]
) -> None:
    server.handler = stays(*sent)

    async def read() -> None:
        exchange = await client.open("POST", "/v1/x", b"{}")
        while await exchange.next():
            pass

    task = asyncio.create_task(read())
    await until(lambda: bool(server.requests))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(server)


async def test_a_cancelled_upload_closes_its_connection(server: Server, client: HTTPClient) -> None:
    """The server reads no further, so the request is never sent to its end."""
    taken = asyncio.Event()

    async def stop(connection: Connection) -> None:
        taken.set()
        await asyncio.sleep(20)

    server.reads, server.handler = False, stop
    data = b"x" * 30_000_000
    task = asyncio.create_task(client.open("POST", "/v1/x", data))
    await taken.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, AT_ONCE)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)) as caught:
        await asyncio.wait_for(server.connections[0].reader.readexactly(31_000_000), AT_ONCE)
    assert len(getattr(caught.value, "partial", b"")) < 25_000_000


async def test_a_response_before_the_request_has_been_sent(
    server: Server, kind: str, make: MakeClient
) -> None:
    """As a server refuses a body that is too large. httpx sends all before it reads a byte."""

    async def refuse(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(response(BODY, status="413 Too Large"))
        await asyncio.sleep(20)

    server.reads, server.handler = False, refuse
    opening = make(server.url, timeouts=Timeouts(5, 1, 20)).open("POST", "/v1/x", b"x" * 30_000_000)
    if kind == "httpx":
        with pytest.raises(ReadTimeout, match="no answer"):
            await opening
    else:
        exchange = await opening
        assert (exchange.status, await exchange.next()) == (413, BODY)
        await asyncio.wait_for(exchange.close(), AT_ONCE)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)) as caught:
        await asyncio.wait_for(server.connections[0].reader.readexactly(31_000_000), AT_ONCE)
    assert len(getattr(caught.value, "partial", b"")) < 25_000_000


async def test_close_ends_the_stream_at_once(server: Server, client: HTTPClient) -> None:
    server.handler = stays(CHUNKED + chunk(b"Hel"))
    exchange = await client.open("POST", "/v1/x", b"{}")
    assert await exchange.next() == b"Hel"
    await exchange.close()
    await gone(server)
    with pytest.raises(ConnectionLost, match="closed on this side"):
        await exchange.next()
    await exchange.close()


async def test_close_while_another_task_reads(server: Server, client: HTTPClient) -> None:
    server.handler = stays(CHUNKED + chunk(b"Hel"))
    exchange = await client.open("POST", "/v1/x", b"{}")
    await exchange.next()
    reading = asyncio.create_task(exchange.next())
    await asyncio.sleep(0.05)
    await exchange.close()
    await gone(server)
    with pytest.raises(ConnectionLost, match="closed on this side"):
        await reading


async def test_closing_the_client_ends_everything(server: Server, client: HTTPClient) -> None:
    """Also what waits for its head, and streams that nobody reads at the moment."""
    server.handler = stays(CHUNKED + chunk(b"Hel"))
    idle = await client.open("POST", "/v1/x", b"{}")
    server.handler = stays()
    waiting = asyncio.create_task(client.open("POST", "/v1/x", b"{}"))
    await until(lambda: len(server.requests) == 2)
    await client.close()
    await gone(server, 0)
    await gone(server, 1)
    with pytest.raises(ConnectionLost, match="closed on this side"):
        await waiting
    with pytest.raises(ConnectionLost, match="closed on this side"):
        await idle.next()
    with pytest.raises(ConnectError, match="the client is closed"):
        await client.open("GET", "/v1/x")
    assert len(server.connections) == 2


async def test_closing_the_client_stops_an_attempt_to_connect(
    make: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server().serving() as server:
        resolving = asyncio.Event()

        async def never(*_: Any, **__: Any) -> Any:
            resolving.set()
            await asyncio.sleep(20)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        client = make(f"http://engine.test:{server.port}")
        waiting = asyncio.create_task(client.open("POST", "/v1/x", b"{}"))
        await resolving.wait()
        await asyncio.wait_for(client.close(), AT_ONCE)
        with pytest.raises(ConnectError, match="closed on this side"):
            await waiting
        assert server.connections == []


async def test_nobody_reads(server: Server, client: HTTPClient) -> None:
    """The server is held back, instead of memory filling up."""

    async def pour(connection: Connection) -> None:
        await connection.send(CHUNKED)
        for _ in range(2_500):
            await connection.send(chunk(b"x" * 20_000))
        await connection.send(chunk(b""))

    server.handler = pour
    exchange = await client.open("GET", "/v1/x")
    before = -1
    while (sent := server.connections[0].sent) != before:
        before = sent
        await asyncio.sleep(0.3)
    assert sent < 20_000_000  # most is in the kernel's buffers
    size = 0
    while part := await exchange.next():
        size += len(part)
    assert size == 50_000_000
