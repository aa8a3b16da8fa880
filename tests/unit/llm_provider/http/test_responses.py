"""Responses that are whole, and servers that are faulty, with each transport."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import (
    ConnectionLost,
    InvalidResponse,
    ReadTimeout,
    TransportError,
)
from llm_provider.http.settings import Timeouts

from .conftest import PATIENT, MakeClient
from .server import BODY, CHUNKED, Connection, Handler, Server, chunk, response, sends, stays, until

SHORT = Timeouts(connect=5, first_byte=0.5, idle=0.5)
LIMIT = 1_000_000


async def drip(connection: Connection) -> None:
    """A header a byte at a time: never silent for long, and never done."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 10_000:
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.02)


async def interim_for_ever(connection: Connection) -> None:
    while True:
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await asyncio.sleep(0.01)


async def endless_head(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await connection.send(b"X-Filler: 0123456789\r\n" * 100)


async def endless_line(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nX-Filler: ")
    while True:
        await connection.send(b"0123456789" * 100)


async def endless_body(connection: Connection) -> None:
    await connection.send(CHUNKED)
    while True:
        await connection.send(chunk(b"x" * 10_000))


@dataclass(frozen=True)
class Fault:
    """What a server does, and the error that follows; `before`: the part of a body before it."""

    name: str
    handler: Handler
    error: type[TransportError]
    text: str
    before: bytes = b""
    timeouts: Timeouts = field(default=PATIENT)


async def reset(connection: Connection) -> None:
    await connection.reset()


async def reset_in_the_body(connection: Connection) -> None:
    await connection.reset(response(BODY * 9)[:-100])


async def reset_in_a_chunk(connection: Connection) -> None:
    await connection.reset(CHUNKED + chunk(b"Hel") + b"5\r\nlo")


CLOSED = "the connection was closed"
RESET = "Connection reset by peer"
NOT_HTTP = "not valid HTTP"
SHORT_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + BODY
FAULTS = [
    Fault("closed before the head", sends(), ConnectionLost, CLOSED),
    Fault("reset before the head", reset, ConnectionLost, RESET),
    Fault("closed in the status line", sends(b"HTTP/1.1 2"), ConnectionLost, CLOSED),
    Fault("closed in the head", sends(b"HTTP/1.1 200 OK\r\nCont"), ConnectionLost, CLOSED),
    Fault("closed in the body", sends(SHORT_BODY), ConnectionLost, CLOSED, BODY),
    Fault("reset in the body", reset_in_the_body, ConnectionLost, RESET, (BODY * 9)[:-100]),
    Fault(
        "closed in a chunk",
        sends(CHUNKED + chunk(b"Hel") + b"5\r\nlo"),
        ConnectionLost,
        CLOSED,
        b"Hello",
    ),
    Fault("reset in a chunk", reset_in_a_chunk, ConnectionLost, RESET, b"Hello"),
    Fault(
        "closed without the last chunk",
        sends(CHUNKED + chunk(b"Hel")),
        ConnectionLost,
        CLOSED,
        b"Hel",
    ),
    Fault("silent", stays(), ReadTimeout, "no answer", timeouts=SHORT),
    Fault("silent in the head", stays(b"HTTP/1.1 20"), ReadTimeout, "no answer", timeouts=SHORT),
    Fault("a slow head", drip, ReadTimeout, "no answer", timeouts=SHORT),
    Fault("interim heads for ever", interim_for_ever, ReadTimeout, "no answer", timeouts=SHORT),
    Fault(
        "silent after the head",
        stays(CHUNKED),
        ReadTimeout,
        "silence",
        timeouts=Timeouts(first_byte=20, idle=0.3),
    ),
    Fault(
        "silent in the body",
        stays(CHUNKED + chunk(b"Hel")),
        ReadTimeout,
        "silence",
        b"Hel",
        timeouts=Timeouts(first_byte=20, idle=0.3),
    ),
    Fault("an endless head", endless_head, InvalidResponse, NOT_HTTP),
    Fault("an endless header", endless_line, InvalidResponse, NOT_HTTP),
    Fault("another protocol", sends(b"SSH-2.0-OpenSSH\r\n\r\n"), InvalidResponse, NOT_HTTP),
    Fault("garbage", sends(b"\xff\x00\r\n\r\n" * 9), InvalidResponse, NOT_HTTP),
    Fault("garbage that stays", stays(b"nonsense\r\n\r\n"), InvalidResponse, NOT_HTTP),
    Fault(
        "two lengths",
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nHello!"),
        InvalidResponse,
        NOT_HTTP,
    ),
    Fault(
        "a length that is none",
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nHello"),
        InvalidResponse,
        NOT_HTTP,
    ),
    Fault(
        "no chunk",
        stays(CHUNKED + chunk(b"Hel") + b"nonsense\r\n"),
        InvalidResponse,
        NOT_HTTP,
        b"Hel",
    ),
    Fault(
        "an upgrade",
        stays(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
        InvalidResponse,
        NOT_HTTP,
    ),
    Fault("a body without end", endless_body, InvalidResponse, f"more than {LIMIT} bytes"),
]


async def receive(client: HTTPClient, got: bytearray, method: str = "POST") -> int:
    """Send a request, and collect the body; return its status."""
    exchange = await client.open(method, "/v1/x", b"{}" if method == "POST" else None)
    try:
        while part := await exchange.next():
            got += part
            if len(got) > LIMIT:
                await exchange.read(LIMIT)
        return exchange.status
    finally:
        await exchange.close()


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_faulty_server(server: Server, make: MakeClient, fault: Fault, method: str) -> None:
    server.handler = fault.handler
    client = make(server.url, timeouts=fault.timeouts)
    got = bytearray()
    with pytest.raises(TransportError) as caught:
        await asyncio.wait_for(receive(client, got, method), 15 if fault.timeouts == PATIENT else 4)
    assert type(caught.value) is fault.error
    # aiohttp does not keep every reason.
    assert str(caught.value) in {fault.text, CLOSED if fault.text == RESET else fault.text}
    if fault.text != f"more than {LIMIT} bytes":
        # aiohttp's parser drops what it got in one piece with what is not valid.
        assert bytes(got) in (fault.before, b"" if fault.error is InvalidResponse else fault.before)
    # One request on one connection, which ends, whatever happened.
    await until(server.connections[0].gone.is_set, "the end")
    assert (len(server.connections), len(server.requests)) == (1, 1)
    assert server.requests[0].after == b""
    # And the client is usable afterwards.
    server.handler = sends(response(BODY))
    got.clear()
    assert (await receive(client, got), bytes(got)) == (200, BODY)


@pytest.mark.parametrize(
    ("name", "raw", "status", "body"),
    [
        ("a length", response(BODY), 200, BODY),
        ("chunks", CHUNKED + chunk(b"Hel") + chunk(b"lo") + chunk(b""), 200, b"Hello"),
        ("no length", b"HTTP/1.1 200 OK\r\n\r\n" + BODY, 200, BODY),
        ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n" + BODY, 200, BODY),
        ("nothing", response(), 200, b""),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        ("304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        ("an error", response(b"no", status="599 Odd"), 599, b"no"),
        ("interim heads", b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + response(BODY), 200, BODY),
        (
            "trailers",
            CHUNKED + chunk(b"Hello") + b"0\r\nX-Late: 1\r\nStatus: 500\r\n\r\n",
            200,
            b"Hello",
        ),
        ("a redirect", response(b"there", "Location: /v1/y", status="307 There"), 307, b"there"),
        ("compressed", response(b"\x1f\x8b??", "Content-Encoding: gzip"), 200, b"\x1f\x8b??"),
        ("kept alive", response(BODY, "Connection: keep-alive"), 200, BODY),
        ("data after it", response(BODY) + b"HTTP/1.1 500 Late\r\n\r\n", 200, BODY),
        ("a long header", response(BODY, f"X-Long: {'y' * 50_000}"), 200, BODY),
        ("line feeds", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", 200, b"hi"),
    ],
)
async def test_a_whole_response(
    server: Server, client: HTTPClient, name: str, raw: bytes, status: int, body: bytes
) -> None:
    server.handler = sends(raw)
    exchange = await client.open("POST", "/v1/x", b"{}")
    assert exchange.status == status
    assert "x-late" not in exchange.headers
    assert await exchange.read(LIMIT) == body
    assert await exchange.next() == b""
    await exchange.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", [b"", chunk(b"x")[:-1]], ids=["no last chunk", "half a chunk"])
async def test_what_came_before_the_connection_was_lost_is_read(
    server: Server, client: HTTPClient, end: bytes
) -> None:
    """However late it is read: a slow reader gets what an engine had sent before it fell."""
    server.handler = sends(CHUNKED + chunk(b"Hel") + chunk(b"lo") + end)
    exchange = await client.open("GET", "/v1/x")
    await until(server.connections[0].gone.is_set)
    await asyncio.sleep(0.1)
    got = b""
    with pytest.raises(ConnectionLost):
        while True:
            part = await exchange.next()
            assert part, "a stream that was cut looks whole"
            got += part
    assert got in (b"Hello", b"Hellox")


async def test_the_response_to_head_has_no_body(server: Server, client: HTTPClient) -> None:
    server.handler = stays(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    exchange = await client.open("HEAD", "/health")
    assert (exchange.status, await exchange.read(0)) == (200, b"")


async def test_parts_are_there_as_soon_as_they_were_sent(
    server: Server, client: HTTPClient
) -> None:
    events = [asyncio.Event() for _ in range(5)]

    async def one_by_one(connection: Connection) -> None:
        await connection.send(CHUNKED)
        for number, event in enumerate(events):
            await event.wait()
            await connection.send(chunk(b"%d" % number))
        await connection.send(chunk(b""))

    server.handler = one_by_one
    exchange = await client.open("GET", "/v1/x")
    for number, event in enumerate(events):
        event.set()
        assert await asyncio.wait_for(exchange.next(), 5) == b"%d" % number
    assert await exchange.next() == b""


async def test_headers(server: Server, client: HTTPClient) -> None:
    server.handler = sends(response(b"", "X-One: a  ", "x-TWO: caf\u00e9"))
    exchange = await client.open("GET", "/v1/x")
    assert exchange.headers["x-one"] == "a"
    assert exchange.headers["x-two"].encode("latin-1") == "caf\u00e9".encode()


async def test_a_head_above_the_limit_that_the_transport_lets_pass(
    server: Server, client: HTTPClient
) -> None:
    server.handler = sends(response(b"", *(f"X-{n}: {'y' * 1000}" for n in range(70))))
    with pytest.raises(InvalidResponse, match="a head of more than 65536 bytes"):
        await client.open("GET", "/v1/x")


async def test_silence_counts_from_the_last_part(server: Server, make: MakeClient) -> None:
    """A slow stream is no silent one, and each phase has a limit of its own."""

    async def slow(connection: Connection) -> None:
        await asyncio.sleep(1.2)
        await connection.send(CHUNKED)
        for _ in range(8):
            await connection.send(chunk(b"x"))
            await asyncio.sleep(0.25)
        await connection.gone.wait()

    server.handler = slow
    client = make(server.url, timeouts=Timeouts(connect=1, first_byte=20, idle=1.5))
    began = time.monotonic()
    exchange = await client.open("GET", "/v1/x")
    with pytest.raises(ReadTimeout, match="silence"):
        await exchange.read(LIMIT)
    # By the limit of silence, and not by that of the first byte.
    assert 1.2 + 8 * 0.25 + 1.5 - 0.3 < time.monotonic() - began < 20
    with pytest.raises(ReadTimeout, match="silence"):
        await exchange.next()
