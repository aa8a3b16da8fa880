"""HTTP/1.1 to an engine, with httpx: one connection for each request, nothing sent twice.

llama-server closes a connection after a streamed response without announcing it, and every server
closes an idle one eventually: a request sent into such a connection is lost, and may not be sent
again since it may have run. So each request has a connection of its own, announced as such.

httpx has one read timeout for the first byte and for silence in the body. Here, each phase has its
own limit: the transport gets none, and the client ends what takes too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self, cast

import httpx

from llm_provider.http.errors import (
    ConnectError,
    ConnectionLost,
    InvalidResponse,
    InvalidSetting,
    ReadTimeout,
    TransportError,
)
from llm_provider.http.settings import Timeouts, check_headers
from llm_provider.http.translation import translate
from llm_provider.http.transports import (
    MAX_HEAD_BYTES,
    Attempt,
    Verify,
    current_attempt,
    default_transport,
    reports_connections,
)
from llm_provider.http.url import BaseURL, parse_base_url

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Parsing an address takes as long as all else for a request; there are few of them.
_MAX_PARSED = 64
JSON = "application/json"


class HTTPClient:
    """Requests to one server. One client belongs to one event loop.

    `timeouts` are a `Timeouts`, or seconds that the server may be silent. `verify` and `transport`
    are alternatives: the certificates that are accepted, or a transport of httpx.
    """

    def __init__(
        self,
        url: str | BaseURL,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | float | None = None,
        *,
        verify: Verify = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = parse_base_url(url) if isinstance(url, str) else url
        if transport is not None and verify is not True:
            raise InvalidSetting("'verify' has no effect beside 'transport'. Give one of the two.")
        self._timeouts = _timeouts(timeouts)
        self._headers = _request_headers(self.url, headers or {})
        if transport is None:
            transport = default_transport(verify, tls=self.url.scheme == "https")
        self._reports = reports_connections(transport)
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self._parsed: dict[str, httpx.URL] = {}
        self._exchanges: set[Exchange] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(
        self, method: str, path: str, data: bytes | None = None, *, content_type: str = JSON
    ) -> Exchange:
        """Send a request and return its exchange, whose status and headers are there; close it.

        Raises TransportError; InvalidSetting for a method, path or content type that is invalid.
        """
        request = self._request(method, path, data, content_type)
        if self._closed:
            raise ConnectError("the client is closed")
        exchange = Exchange(self._client, self._timeouts, self._reports, self._exchanges.discard)
        self._exchanges.add(exchange)
        await exchange._start(request)
        return exchange

    async def close(self) -> None:
        """Close all connections, also those being made; who waits there gets TransportError."""
        self._closed = True
        await asyncio.gather(*(exchange.close() for exchange in self._exchanges))
        await self._client.aclose()

    def _request(
        self, method: str, path: str, data: bytes | None, content_type: str
    ) -> httpx.Request:
        if method not in _METHODS:
            raise InvalidSetting(f"The method {method[:20]!r} is invalid.")
        url = self._parsed.get(path)
        if url is None:
            url = httpx.URL(self.url.join(path))
            if len(self._parsed) < _MAX_PARSED:
                self._parsed[path] = url
        headers = self._headers
        if data is not None:
            headers = headers | check_headers({"content-type": content_type})
        # httpx waits for a place in its pool without a limit of its own; aiohttp resolves names
        # and makes TLS within this one.
        connect = self._timeouts.connect
        timeout = {"connect": connect, "pool": connect, "read": None, "write": None}
        extensions = {"timeout": timeout}
        return httpx.Request(method, url, headers=headers, content=data, extensions=extensions)


class Exchange:
    """One request and its response: `status`, `headers` (names in lower case), then the body."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        timeouts: Timeouts,
        reports: bool,
        on_close: Callable[[Exchange], None],
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._client = client
        self._timeouts = timeouts
        self._on_close = on_close
        self._attempt = Attempt(self._on_connected)
        self._reports = reports
        self._response: httpx.Response | None = None
        self._parts: AsyncGenerator[bytes, None] | None = None
        self._limit: asyncio.Timeout | None = None  # of the operation in progress
        self._closing = False
        self._failure: TransportError | None = None
        self._released = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def next(self) -> bytes:
        """Wait for the next part of the body; empty at its end. Raises TransportError."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)
        if self._parts is None:
            return b""
        failure: TransportError
        limit = asyncio.timeout(self._timeouts.idle)
        try:
            async with limit:
                self._limit = limit
                return await anext(self._parts)
        except StopAsyncIteration:
            self._limit = None
            await self._release()
            return b""
        except Exception as error:
            failure = self._translated(error, limit)
        except BaseException:
            self._limit = None
            await self._release()
            raise
        finally:
            self._limit = None
        await self._fail(failure)
        raise failure

    async def read(self, most: int) -> bytes:
        """Wait for the rest of the body. Raises TransportError, also above `most` bytes."""
        parts = []
        size = 0
        while part := await self.next():
            size += len(part)
            if size > most:
                await self.close()
                raise InvalidResponse(f"more than {most} bytes")
            parts.append(part)
        return b"".join(parts)

    async def close(self) -> None:
        """Close the connection, which makes an engine stop its work."""
        if self._limit is None:
            if self._parts is not None and self._failure is None:
                self._failure = ConnectionLost("closed on this side")
            await self._release()
            return
        # The task that waits for the response ends its operation, and closes the connection.
        self._closing = True
        self._limit.reschedule(asyncio.get_running_loop().time())
        await self._released.wait()

    # Inside.

    async def _start(self, request: httpx.Request) -> None:
        """Send the request and wait for status and headers."""
        request.extensions = {**request.extensions, "trace": self._trace}
        seconds = self._timeouts.connect
        if not self._reports:
            seconds += self._timeouts.first_byte
        failure: TransportError | None = None
        limit = asyncio.timeout(seconds)
        token = current_attempt.set(self._attempt)
        try:
            async with limit:
                self._limit = limit
                self._response = await self._client.send(request, stream=True)
            failure = self._read_head(self._response)
        except Exception as error:
            failure = self._translated(error, limit)
        except BaseException:
            self._limit = None
            await self._release()
            raise
        finally:
            self._limit = None
            current_attempt.reset(token)
        if failure is not None:
            await self._fail(failure)
            raise failure

    def _read_head(self, response: httpx.Response) -> TransportError | None:
        raw = response.headers.raw
        if response.status_code < 200:  # another protocol follows, which was not asked for
            return InvalidResponse("not valid HTTP")
        if sum(len(name) + len(value) + 4 for name, value in raw) > MAX_HEAD_BYTES:
            return InvalidResponse(f"a head of more than {MAX_HEAD_BYTES} bytes")
        self.status = response.status_code
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw
        }
        if response.is_stream_consumed:  # as the responses of httpx.MockTransport are
            self._parts = _content(response)
        else:
            self._parts = cast(AsyncGenerator[bytes, None], response.aiter_raw())
        return None

    def _on_connected(self) -> None:
        """The first byte has a limit of its own, which begins here."""
        if self._limit is not None and not self._closing and not self._limit.expired():
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(now + self._timeouts.first_byte)

    async def _trace(self, name: str, _: Mapping[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            self._attempt.succeed()

    def _translated(self, error: Exception, limit: asyncio.Timeout) -> TransportError:
        # None where the transport does not tell.
        connected = self._attempt.connected if self._reports else None
        if not limit.expired():
            return translate(error, connected=connected)
        if self._closing:
            closed = "closed on this side"
            return ConnectError(closed) if connected is False else ConnectionLost(closed)
        if connected is False:
            return ConnectError("no answer to the attempt to connect")
        return ReadTimeout("no answer" if self._parts is None else "silence")

    async def _fail(self, failure: TransportError) -> None:
        self._failure = failure
        await self._release()

    async def _release(self) -> None:
        """Close the connection; once."""
        parts, response, self._parts, self._response = self._parts, self._response, None, None
        try:
            with suppress(Exception):  # the connection is closed all the same
                if parts is not None:
                    await parts.aclose()
                if response is not None:
                    await response.aclose()
        finally:
            if response is not None:
                # httpx's stream refers to its response, and that to the request, whose body may be
                # large: such a cycle would stay in memory until Python looks for cycles.
                response.stream = httpx.ByteStream(b"")
            self._on_close(self)
            self._released.set()


async def _content(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    if response.content:
        yield response.content


def _timeouts(given: Timeouts | float | None) -> Timeouts:
    if given is None:
        return Timeouts()
    timeouts = given if isinstance(given, Timeouts) else Timeouts.of(given)
    timeouts.check()
    return timeouts


def _request_headers(url: BaseURL, given: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request; `given` replaces those below it may."""
    headers = {
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "edge-llm",
        **({"authorization": url.authorization} if url.authorization else {}),
        **check_headers(given),
    }
    return {"host": url.authority, "connection": "close", **headers}
