"""HTTP/1.1 to an engine: a connection for each request, read as its bytes come.

llama-server closes a connection behind a streamed answer without saying so, and every server
closes an idle one some time: a request sent into such a connection is lost, and may not be sent
again since it may have run. So each request has its own connection, announced as such; to an engine
on the same host opening it costs less than 0.1 ms. That leaves little of what an HTTP client does:
the parser is httptools', and the rest is here, since a general client's bookkeeping for a request
(0.7 ms) costs more than all else that the chat API does for it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import httptools

from llm_provider.http.errors import (
    ConnectError,
    ConnectionLost,
    InvalidResponse,
    ReadTimeout,
    TransportError,
)

CONNECT_SECONDS = 5.0
# A name may move to another address when its container is replaced.
_NAME_SECONDS = 2.0
_MOST_HEAD = 64 * 1024
_MOST_WAITING = 256 * 1024


class HTTPClient:
    """Requests to one server. `seconds` of silence are allowed; `url` is http(s)://host[:port]."""

    def __init__(self, url: str, headers: Mapping[str, str], seconds: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path
        head = {"Host": parts.netloc.rpartition("@")[2], "Connection": "close", **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._seconds = seconds
        self._addresses: tuple[float, list[str]] | None = None
        self._exchanges: set[Exchange] = set()

    async def open(
        self, method: str, path: str, data: bytes | None, kind: str = "application/json"
    ) -> Exchange:
        """Send a request and return its answer, whose head has come; to be closed.

        `kind` is the type of `data`. Raises TransportError.
        """
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}"
        if data is not None:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        exchange = await self._connect()
        self._exchanges.add(exchange)
        exchange.on_close = self._exchanges.discard
        try:
            exchange.send(f"{head}\r\n".encode("latin-1") + (data or b""))
            # As a whole: a byte now and then is not silence, but no answer either.
            async with asyncio.timeout(self._seconds):
                await exchange.head()
        except TimeoutError:
            exchange.close()
            raise ReadTimeout("no answer") from None
        except BaseException:
            exchange.close()
            raise
        return exchange

    def close(self) -> None:
        """Break all connections: what waits for an answer there gets ConnectionLost."""
        for exchange in list(self._exchanges):
            exchange.fail(ConnectionLost("closed on this side"))

    async def _connect(self) -> Exchange:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(CONNECT_SECONDS, self._seconds)):
                *others, last = await self._resolve(loop)
                for address in others:
                    with suppress(OSError):
                        return await self._connected(loop, address)
                return await self._connected(loop, last)
        except TimeoutError:
            self._addresses = None
            raise ConnectError("no answer to the attempt to connect") from None
        except ConnectionRefusedError as error:
            self._addresses = None
            raise ConnectError("the connection was refused", refused=True) from error
        except OSError as error:
            self._addresses = None
            raise ConnectError((error.strerror or str(error)).rstrip(".")) from error

    async def _connected(self, loop: asyncio.AbstractEventLoop, address: str) -> Exchange:
        _, exchange = await loop.create_connection(
            lambda: Exchange(loop, self._seconds),
            address,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return exchange

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """All addresses of the host: `localhost` is two, of which an engine may serve one."""
        if self._addresses is None or self._addresses[0] < time.monotonic():
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = time.monotonic() + _NAME_SECONDS, [str(one[4][0]) for one in found]
        return self._addresses[1]


class Exchange(asyncio.Protocol):
    """One request's answer: its `status` and `headers` (names in lower case), then its body."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.on_close: Callable[[Exchange], None] = _nothing
        self._loop = loop
        self._seconds = seconds
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head_size = 0
        self._begun = False
        self._whole = False
        self._error: TransportError | None = None
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._last = loop.time()
        self._alarm: asyncio.TimerHandle | None = None

    # What the caller does.

    def send(self, data: bytes) -> None:
        """Write the request."""
        if self._transport is not None:
            self._transport.write(data)

    async def head(self) -> None:
        """Wait until status and headers are there. Raises TransportError."""
        while not self._begun:
            await self._more()
        self._last = self._loop.time()
        self._alarm = self._loop.call_later(self._seconds, self._listen)

    async def next(self) -> bytes:
        """Wait for a next part of the body; empty at its end. Raises TransportError."""
        while not self._parts:
            if self._whole:
                return b""
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._last = self._loop.time()
            self._transport.resume_reading()
        return data

    async def read(self, most: int) -> bytes:
        """Wait for the rest of the body. Raises TransportError, also above `most` bytes."""
        parts = []
        size = 0
        while part := await self.next():
            size += len(part)
            if size > most:
                raise InvalidResponse(f"more than {most} bytes")
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Break the connection off, which makes an engine stop its work."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.on_close(self)

    def fail(self, error: TransportError) -> None:
        """End the answer, where it has not ended yet."""
        if not self._whole and self._error is None:
            self._error = error
        self._wake()
        self.close()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._parts:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _listen(self) -> None:
        quiet = 0.0 if self._paused else self._loop.time() - self._last
        if quiet >= self._seconds:
            self.fail(ReadTimeout("silence"))
        else:
            self._alarm = self._loop.call_later(self._seconds - quiet, self._listen)

    # What the connection tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._last = self._loop.time()
        if not self._begun:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(InvalidResponse("it switched protocols"))
        except httptools.HttpParserError as error:
            if not self._whole:
                self.fail(InvalidResponse(str(error) or "no HTTP"))
        if not self._begun and self._head_size > _MOST_HEAD:
            self.fail(InvalidResponse(f"a head of more than {_MOST_HEAD} bytes"))
        if self._waiting_bytes > _MOST_WAITING and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        # An answer that tells no length ends with its connection; but not one cut on this side.
        if (
            error is None
            and self._error is None
            and self._begun
            and "content-length" not in self.headers
            and "transfer-encoding" not in self.headers
        ):
            self._whole = True
        self.fail(ConnectionLost(str(error).rstrip(".") if error else "the connection was closed"))

    # What the parser finds. Behind the answer's end there is nothing of ours, whatever comes.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # nor are trailers
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._begun:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim answer: the real one follows
            self.headers.clear()
            return
        self._begun = True

    def on_body(self, data: bytes) -> None:
        if self._whole:
            return
        self._parts.append(data)
        self._waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._begun:
            self._whole = True


def _nothing(_: Exchange) -> None:
    pass
