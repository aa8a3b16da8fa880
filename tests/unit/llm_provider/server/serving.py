"""A real uvicorn with limits, a trivial application, and clients that send any bytes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.connection_limits import limited_protocol
from llm_provider.server.limits import Limits
from llm_provider.server.tls import Certificate
from llm_provider.server.tls_listener import TLSListener
from llm_provider.server.uvicorn_server import protocol_factory

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LIMITS: dict[str, Any] = {
    "max_request_line_bytes": 1000,
    "max_header_bytes": 4000,
    "max_headers": 20,
    # Longer than any wait of these tests: each test of a limit sets that one.
    "header_seconds": 60,
    "first_byte_seconds": 60,
    "keep_alive_seconds": 60,
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
    ssl: ssl.SSLContext | None = None
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        opened = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.ssl)
        self.clients.append(Client(*opened))
        return self.clients[-1]

    @property
    def connections(self) -> int:
        """As uvicorn counts them."""
        return len(self.server.server_state.connections)

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
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 15)
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        return head + await self.reader.readexactly(int(length[1]))

    async def rest(self) -> bytes:
        """All that comes until the end; an empty text where the connection was reset."""
        try:
            return await asyncio.wait_for(self.reader.read(), 15)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def serving(
    other: Any = None,
    certificate: Certificate | None = None,
    trust: ssl.SSLContext | None = None,
    **limits: Any,
) -> AsyncIterator[Served]:
    """Serve App, or any `other` application; with `certificate` over TLS, which `trust` checks."""
    app, guard = App(), ConnectionGuard(Limits(**LIMITS | limits))
    config = uvicorn.Config(
        other or app,
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
    await server.startup([listener] if certificate is None else [])
    if certificate is not None:
        entrance = TLSListener(listener, guard, certificate, protocol_factory(server, guard))
    served = Served(app, guard, server, listener.getsockname()[1], trust)
    try:
        yield served
    finally:
        for client in served.clients:
            client.writer.transport.abort()
        for each in server.servers:
            each.close()
        if certificate is not None:
            await entrance.close()
            assert entrance.arrivals == set()
            listener.close()
        for connection in list(server.server_state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.transport.abort()
        await asyncio.sleep(0.01)
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
