"""Attacks on a real uvicorn, small and over loopback."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llm_provider.server import connection_limits
from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.connection_limits import UVICORN, limited_protocol
from llm_provider.server.limits import Limits

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LIMITS: dict[str, Any] = {
    "max_request_line_bytes": 1000,
    "max_header_bytes": 4000,
    "max_headers": 20,
    "header_seconds": 0.4,
    "first_byte_seconds": 0.6,
    "keep_alive_seconds": 0.8,
}


@dataclass
class App:
    """A trivial ASGI application, which records what it was asked."""

    scopes: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        path = scope["path"]
        if path != "/early":
            size = 0
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left += 1
                    return
                size += len(message["body"])
                if not message["more_body"]:
                    break
        else:
            size = -1
        # After the body: what came behind it would be in the headers by now.
        self.scopes.append({**scope, "headers": list(scope["headers"])})
        if path == "/slow":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(10):
                await send({"type": "http.response.body", "body": b"part,", "more_body": True})
                await asyncio.sleep(0.1)
            await send({"type": "http.response.body", "body": b"end"})
            return
        body = b"x" * 8_000_000 if path == "/large" else str(size).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Served:
    app: App
    guard: ConnectionGuard
    server: uvicorn.Server
    port: int

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def sends(self, data: bytes) -> bytes:
        """What comes back until the server closes, for one write."""
        client = await self.connect()
        client.writer.write(data)
        return await client.rest()

    async def is_well(self) -> bool:
        client = await self.connect()
        answer = await client.asks(GET)
        client.writer.close()
        return answer.endswith(b"\r\n\r\n0")


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def asks(self, data: bytes) -> bytes:
        """An answer with a Content-Length."""
        self.writer.write(data)
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        return head + await self.reader.readexactly(int(length[1]))

    async def rest(self) -> bytes:
        """All that comes until the end; an empty text where the connection was reset."""
        try:
            return await asyncio.wait_for(self.reader.read(), 8)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    app, guard = App(), ConnectionGuard(Limits(**LIMITS | limits))
    config = uvicorn.Config(
        app,
        http=limited_protocol(guard),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.startup([listener])
    try:
        yield Served(app, guard, server, listener.getsockname()[1])
    finally:
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.transport.abort()
        await asyncio.sleep(0)
        for task in server.server_state.tasks:
            task.cancel()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)


def error_of(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-type: application/json" in head
    assert b"content-length: %d" % len(body) in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_uvicorn_is_the_one_that_the_protocol_knows() -> None:
    """After an update: read connection_limits.py beside the new version, then change UVICORN."""
    assert importlib.metadata.version("uvicorn") == UVICORN
    source = inspect.getsource(HttpToolsProtocol)
    for name in (
        "timeout_keep_alive", "ws_protocol_class", "transport", "client", "cycle", "pipeline",
        "headers", "url", "loop",
    ):  # fmt: skip
        assert f"self.{name}" in source, name
    for name in (
        "connection_made", "connection_lost", "data_received", "on_message_begin", "on_url",
        "on_header", "on_headers_complete", "on_body", "on_message_complete",
        "on_response_complete", "send_400_response", "_unset_keepalive_if_required",
    ):  # fmt: skip
        assert callable(getattr(HttpToolsProtocol, name)), name
    assert "except httptools.HttpParserError" in inspect.getsource(HttpToolsProtocol.data_received)
    assert "self.send_400_response(msg)" in inspect.getsource(HttpToolsProtocol.data_received)
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)
    cycle = inspect.getsource(RequestResponseCycle)
    assert "self.response_complete" in cycle
    assert "if not self.keep_alive:\n                    self.transport.close()" in cycle


async def test_requests_are_served_as_ever() -> None:
    async with serving() as served:
        base = f"http://127.0.0.1:{served.port}"
        async with httpx.AsyncClient(base_url=base) as client:
            for _ in range(3):
                assert (await client.get("/", headers={"x-some": "y" * 3000})).text == "0"
            assert (await client.post("/", content=b"x" * 3_000_000)).text == "3000000"

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(50):
                    yield b"y" * 5000

            assert (await client.post("/", content=pieces())).text == "250000"
            assert (await client.get("/slow")).text == "part," * 10 + "end"
            assert len((await client.get("/large")).content) == 8_000_000
        assert len(served.server.server_state.connections) <= 1
        assert served.guard.refused == 0


async def test_a_header_that_is_too_large_is_refused() -> None:
    async with serving() as served:
        for data in (
            b"GET / HTTP/1.1\r\nx: " + b"y" * 5000,
            b"GET / HTTP/1.1\r\n" + b"x" * 5000,
            b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: %s\r\n" % (n, b"y" * 400) for n in range(12)),
            b"\r\n" * 2500,
        ):
            error = error_of(await served.sends(data), 431)
            assert error["message"] == "The header of the request has more than 4000 bytes."
            assert (error["type"], error["code"]) == ("invalid_request_error", "header_too_large")
        assert served.app.scopes == []
        assert await served.is_well()
        assert served.guard.refused == 4


async def test_a_header_in_small_pieces_is_counted_as_one() -> None:
    async with serving(header_seconds=5) as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(50):
            client.writer.write(b"y" * 100)
            await asyncio.sleep(0.002)
        assert error_of(await client.rest(), 431)["code"] == "header_too_large"


async def test_a_header_at_the_limit_is_served() -> None:
    async with serving() as served:
        for size, status in ((4000, b"200"), (4001, b"431")):
            head = b"GET / HTTP/1.1\r\nconnection: close\r\nx: %s\r\n\r\n"
            answer = await served.sends(head % (b"y" * (size - len(head) + 2)))
            assert answer.startswith(b"HTTP/1.1 " + status), size


async def test_each_request_of_a_connection_has_the_whole_limit() -> None:
    async with serving() as served:
        client = await served.connect()
        for size in (3000, 10, 3500, 3500):
            answer = await client.asks(b"GET / HTTP/1.1\r\nx: %s\r\n\r\n" % (b"y" * size))
            assert answer.startswith(b"HTTP/1.1 200")
        post = b"POST / HTTP/1.1\r\ncontent-length: 50000\r\nx: %s\r\n\r\n%s"
        for _ in range(3):
            answer = await client.asks(post % (b"y" * 3500, b"z" * 50000))
            assert answer.endswith(b"\r\n50000")
        client.writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 4500)
        assert error_of(await client.rest(), 431)["code"] == "header_too_large"


async def test_too_many_header_fields_are_refused() -> None:
    async with serving() as served:
        data = b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 21 + b"\r\n"
        error = error_of(await served.sends(data), 431)
        assert error["message"] == "The request has more than 20 header fields."
        assert error["code"] == "too_many_headers"
        client = await served.connect()
        assert (await client.asks(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 20 + b"\r\n")).endswith(b"0")


async def test_a_url_that_is_too_long_is_refused() -> None:
    async with serving() as served:
        error = error_of(await served.sends(b"GET /" + b"y" * 1200 + b" HTTP/1.1\r\n\r\n"), 414)
        assert error["message"] == "The URL has more than 1000 bytes."
        assert error["code"] == "url_too_long"


async def test_what_is_not_http_is_refused_in_the_same_format() -> None:
    async with serving() as served:
        for data in (b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            error = error_of(await served.sends(data), 400)
            assert error["message"] == "Invalid HTTP request received."
        assert await served.is_well()


async def test_a_refused_client_reads_why_although_it_goes_on_sending() -> None:
    """Closing at once would reset the connection, and the answer with it."""
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(64):
            client.writer.write(b"y" * 65536)
            await client.writer.drain()
        assert error_of(await client.rest(), 431)["code"] == "header_too_large"


async def test_a_slow_header_is_refused() -> None:
    async with serving() as served:
        client = await served.connect()
        started = time.monotonic()
        client.writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            for _ in range(40):
                client.writer.write(b"x: y\r\n"[:2])
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        answer = await client.rest()
        error = error_of(answer, 408)
        assert error["message"] == "The header of the request did not end within 0.4 s."
        assert error["code"] == "header_timeout"
        assert 0.3 < time.monotonic() - started < 2
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_refused_connection_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "LINGER_SECONDS", 0.3)
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 5000)
        for _ in range(40):
            await asyncio.sleep(0.05)
            client.writer.write(b"more")
            if not served.server.server_state.connections:
                break
        assert not served.server.server_state.connections
        client.writer.close()


async def test_a_connection_that_never_sends_is_closed() -> None:
    async with serving() as served:
        started = time.monotonic()
        client = await served.connect()
        assert await client.rest() == b""
        assert 0.5 < time.monotonic() - started < 2
        assert len(served.guard) == 0


@pytest.mark.parametrize("begin", [b"", GET])
async def test_blank_lines_keep_no_connection_open(begin: bytes) -> None:
    """Uvicorn stops its timer for an idle connection with any byte that comes."""
    async with serving() as served:
        client = await served.connect()
        if begin:
            await client.asks(begin)
        started = time.monotonic()
        for _ in range(40):
            client.writer.write(b"\r\n")
            await asyncio.sleep(0.05)
            if client.reader.at_eof():
                break
        assert await client.rest() == b""
        assert time.monotonic() - started < 1.9


async def test_an_idle_connection_is_closed() -> None:
    async with serving() as served:
        client = await served.connect()
        for _ in range(3):
            await client.asks(GET)
            await asyncio.sleep(0.5)
        started = time.monotonic()
        assert await client.rest() == b""
        assert time.monotonic() - started < 1.5


async def test_a_long_answer_has_no_limit() -> None:
    async with serving() as served:
        answer = await served.sends(b"GET /slow HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"part,\r\n3\r\nend\r\n0\r\n\r\n")


async def test_a_late_request_does_not_break_the_answer_before_it() -> None:
    async with serving() as served:
        answer = await served.sends(b"GET /slow HTTP/1.1\r\n\r\nGET / HT")
        assert answer.endswith(b"part,\r\n3\r\nend\r\n0\r\n\r\n")
        assert len(served.app.scopes) == 1


async def test_a_body_that_nobody_waits_for_keeps_no_connection_open() -> None:
    async with serving() as served:
        client = await served.connect()
        await client.asks(b"POST /early HTTP/1.1\r\ncontent-length: 1000000\r\n\r\nabc")
        started = time.monotonic()
        for _ in range(60):
            client.writer.write(b"x")
            await asyncio.sleep(0.05)
            if client.reader.at_eof():
                break
        assert time.monotonic() - started < 2.5


async def test_the_rest_of_a_body_is_dropped_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "DRAIN_BYTES", 1_000_000)
    async with serving() as served:
        client = await served.connect()
        head = b"POST /early HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
        assert (await client.asks(head % 800_000 + b"x" * 800_000)).endswith(b"-1")
        assert (await client.asks(GET)).endswith(b"\r\n0"), "the connection serves the next one"
        client.writer.write(head % 4_000_000)
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe|lost"):
            for _ in range(64):
                client.writer.write(b"x" * 65536)
                await client.writer.drain()
                await asyncio.sleep(0.005)


async def test_trailers_are_no_headers() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with serving() as served:
        client = await served.connect()
        assert (await client.asks(chunked + b"authorization: Bearer x\r\n\r\n")).endswith(b"\r\n3")
        assert (await client.asks(GET)).endswith(b"\r\n0")
        assert [name for name, _ in served.app.scopes[0]["headers"]] == [
            b"host", b"transfer-encoding",
        ]  # fmt: skip


@pytest.mark.parametrize("flood", [b"x: y\r\n" * 2000, b"x: " + b"y" * 12000])
async def test_trailers_are_limited(flood: bytes) -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with serving() as served:
        assert not (await served.sends(chunked + flood)).startswith(b"HTTP/1.1 200")
        assert served.guard.refused == 1
        assert await served.is_well()


async def test_extensions_of_chunks_are_limited() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;"
    async with serving() as served:
        await served.sends(chunked + b"x" * 20000)
        assert served.guard.refused == 1


async def test_many_requests_at_once_are_limited() -> None:
    async with serving() as served:
        client = await served.connect()
        client.writer.write(GET * 5)
        await asyncio.sleep(0.2)
        assert len(served.app.scopes) == 5, "a few are answered in turn"
        await served.sends(b"GET /slow HTTP/1.1\r\n\r\n" + GET * 5000)
        assert len(served.app.scopes) <= 7
        assert served.guard.refused == 1


async def test_connections_of_one_address_are_limited() -> None:
    async with serving(max_connections_per_address=3, first_byte_seconds=5) as served:
        busy = [await served.connect() for _ in range(3)]
        for client in busy:
            client.writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        error = error_of(await served.sends(GET), 503)
        assert error["message"] == (
            "The chat API has too many connections from one address. Try again later."
        )
        assert (error["type"], error["code"]) == ("server_error", "too_many_connections")
        assert all([(await client.reader.read(15)).startswith(b"HTTP/1.1 200") for client in busy])
        for client in busy:
            client.writer.close()
        await asyncio.sleep(0.1)
        assert await served.is_well()


async def test_idle_connections_keep_nobody_out() -> None:
    """Many idle connections: each new client is served, and none of them by luck."""
    async with serving(
        max_connections=20, max_connections_per_address=20, first_byte_seconds=9
    ) as served:
        idle = [await served.connect() for _ in range(60)]
        for _ in range(10):
            assert await served.is_well()
        assert len(served.guard) <= 20
        assert served.guard.refused == 0
        for client in idle:
            client.writer.close()


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "LINGER_SECONDS", 0.2)
    async with serving(keep_alive_seconds=0.3) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
            for _ in range(60):
                await asyncio.sleep(0.05)
                if not served.server.server_state.connections:
                    break
            assert not served.server.server_state.connections
            assert len(served.guard) == 0


async def test_counts_are_right_after_much_coming_and_going() -> None:
    async with serving() as served:

        async def visit(number: int) -> None:
            client = await served.connect()
            client.writer.write((GET, b"GET", b"bad\r\n\r\n", b"x" * 5000, b"")[number % 5])
            await asyncio.sleep(0.01 * (number % 3))
            if number % 2:
                client.writer.transport.abort()
            else:
                client.writer.close()

        for _ in range(4):
            await asyncio.gather(*(visit(number) for number in range(30)))
        await asyncio.sleep(0.2)
        guard = served.guard
        assert (len(guard), guard._counted, len(guard._per_group), len(guard._lingering)) == (
            0, 0, 0, 0,
        )  # fmt: skip


_SERVER = """
import socket, sys, uvicorn
from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.connection_limits import limited_protocol
from llm_provider.server.limits import Limits

async def app(scope, receive, send):
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})

guard = ConnectionGuard(Limits(header_seconds=2, first_byte_seconds=2))
config = uvicorn.Config(
    app, http=limited_protocol(guard), lifespan="off", log_config=None, loop="uvloop"
)
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(config).run([listener])
"""


@asynccontextmanager
async def process() -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """A server of its own, with uvloop: its port, and what gives its memory in bytes."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert started.stdout is not None
    port = int(await asyncio.wait_for(started.stdout.readline(), 20))

    def memory() -> int:
        status = Path(f"/proc/{started.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024

    try:
        yield port, memory
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(started.wait(), 5)
        except TimeoutError:
            started.kill()
            await started.wait()


async def ok(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"


@pytest.mark.parametrize(
    "flood",
    [
        b"x: " + b"y" * 65533,
        b"".join(b"x%d: yyyyyyyy\r\n" % number for number in range(3000)),
        b"y" * 65536,
        b"\r\n" * 32768,
    ],
    ids=["one line", "small headers", "no end", "blank lines"],
)
async def test_a_flood_of_headers_takes_no_memory(flood: bytes) -> None:
    """16 connections with up to 4 MiB of header each, against a server in a process of its own."""
    async with process() as (port, memory):
        assert await ok(port)
        before = memory()

        async def attack() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.1\r\n" if flood[:1] != b"\r" else b"")
                for _ in range(64):
                    writer.write(flood)
                    await writer.drain()
                return await asyncio.wait_for(reader.read(), 10)
            except OSError:
                return b""
            finally:
                writer.close()

        answers = await asyncio.gather(*(attack() for _ in range(16)))
        assert sum(answer.startswith(b"HTTP/1.1 431 ") for answer in answers) >= 14
        assert memory() - before < 12 * 1024 * 1024
        assert await ok(port)


async def test_many_silent_and_slow_clients_end_by_themselves() -> None:
    async with process() as (port, memory):
        assert await ok(port)
        before = memory()
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        for _, writer in connections[::2]:
            writer.write(b"GET / HTTP/1.1\r\nx: ")
        started = time.monotonic()
        assert await ok(port)
        answers = await asyncio.gather(
            *(asyncio.wait_for(reader.read(), 10) for reader, _ in connections)
        )
        assert 1.5 < time.monotonic() - started < 6
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[::2])
        assert answers[1::2] == [b""] * 30
        assert memory() - before < 8 * 1024 * 1024
        for _, writer in connections:
            writer.close()
