"""A server on a real socket that does with a connection whatever a test says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest


@dataclass
class Connection:
    """One connection, and the request that it carried."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes = b""
    after: bytes = b""
    """What the client sent after its request."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The connection has ended: where the handler waits for this, because the client closed it."""
    sent: int = 0

    @property
    def head(self) -> str:
        return self.request.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        return self.request.partition(b"\r\n\r\n")[2]

    def header(self, name: str) -> list[str]:
        """All values of a header, as sent."""
        pairs = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return [value for key, _, value in pairs if key.lower() == name.lower()]

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            self.sent += len(part)

    async def reset(self, *parts: bytes) -> None:
        """Send, then end the connection with a reset."""
        await self.send(*parts)
        await asyncio.sleep(0.03)  # what was sent before is read first
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Handler = Callable[[Connection], Awaitable[None]]


def response(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b'{"answer": 42}'


async def answer(connection: Connection) -> None:
    await connection.send(response(BODY, "Content-Type: application/json"))


def sends(*parts: bytes) -> Handler:
    """Send these bytes, then close the connection."""

    async def handler(connection: Connection) -> None:
        await connection.send(*parts)

    return handler


def stays(*parts: bytes) -> Handler:
    """Send these bytes, then be silent until the client has closed the connection."""

    async def handler(connection: Connection) -> None:
        await connection.send(*parts)
        await connection.gone.wait()

    return handler


class Server:
    """Counts what it gets. `handler` decides what each connection gets, once its request is in."""

    def __init__(self) -> None:
        self.handler: Handler = answer
        self.connections: list[Connection] = []
        self.requests: list[Connection] = []
        self.reads = True  # else the handler gets the connection with the request unread
        self.port = 0
        self.tls = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._defects: list[Exception] = []

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(
        self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> AsyncIterator[Server]:
        self.tls = context is not None
        server = await asyncio.start_server(self._serve, host, 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._defects:
            raise self._defects[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        try:
            await self._exchange(connection)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            connection.gone.set()
        except Exception as error:
            self._defects.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
            connection.gone.set()

    async def _exchange(self, connection: Connection) -> None:
        if not self.reads:
            await self.handler(connection)
            return
        head = await connection.reader.readuntil(b"\r\n\r\n")
        connection.request = head
        length = int((connection.header("content-length") or ["0"])[0])
        connection.request += await connection.reader.readexactly(length)
        self.requests.append(connection)
        watching = asyncio.create_task(_watch(connection))
        try:
            await self.handler(connection)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _watch(connection: Connection) -> None:
    try:
        while data := await connection.reader.read(65536):
            connection.after += data
    except ConnectionError:
        pass
    connection.gone.set()


async def until(condition: Callable[[], bool], what: str = "what was waited for") -> None:
    """Wait for `condition`, for a few seconds at most."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"{what} did not happen")
