"""Every exception of a transport becomes one of this package's errors, without its words."""

from __future__ import annotations

import asyncio
import errno
import inspect
import traceback
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import aiohttp.http_exceptions
import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import (
    ConnectError,
    ConnectionLost,
    InvalidResponse,
    ReadTimeout,
    TransportError,
)
from llm_provider.http.settings import Timeouts
from llm_provider.http.translation import translate

from .conftest import MakeClient
from .server import Connection, Server

SECRET = "S3CR3T-of-the-tests"
NOT_SENT = {
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientConnectorSSLError",
    "ClientHttpProxyError",
    "ClientProxyConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionTimeoutError",
    "PoolTimeout",
    "ProxyError",
    "UnixClientConnectorError",
    "UnsupportedProtocol",
}


def exceptions_of(*modules: Any) -> list[type[Exception]]:
    found = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith(module.__name__.split(".")[0])
    }
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


KINDS = exceptions_of(httpx, httpcore, aiohttp, aiohttp.http_exceptions)


def made(kind: type[Exception], text: str) -> Exception:
    """An exception of this kind, whatever its constructor wants."""
    error = kind.__new__(kind, text)
    Exception.__init__(error, text)
    return error


def test_the_packages_have_exceptions() -> None:
    assert len(KINDS) > 60


@pytest.mark.parametrize("connected", [True, False, None])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_exception(kind: type[Exception], connected: bool | None) -> None:
    error = translate(made(kind, f"Bearer {SECRET}"), connected=connected)
    assert type(error) in {ConnectError, ConnectionLost, InvalidResponse, ReadTimeout}
    assert SECRET not in repr(error)
    if connected is not None:
        assert isinstance(error, ConnectError) is not connected
    elif kind.__module__.startswith("httpx"):
        assert isinstance(error, ConnectError) is (kind.__name__ in NOT_SENT)


def wrapped(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (httpx.ReadTimeout("x"), ReadTimeout, "silence"),
        (httpx.WriteTimeout("x"), ReadTimeout, "silence"),
        (httpx.ConnectTimeout("x"), ConnectError, "no answer to the attempt to connect"),
        (httpx.PoolTimeout("x"), ConnectError, "no answer to the attempt to connect"),
        (httpx.ConnectError("x"), ConnectError, "the connection could not be made"),
        (httpx.ReadError("x"), ConnectionLost, "the connection was closed"),
        (httpx.RemoteProtocolError("illegal"), InvalidResponse, "not valid HTTP"),
        (httpx.RemoteProtocolError("peer closed connection"), ConnectionLost, None),
        (httpx.RemoteProtocolError("Server disconnected without"), ConnectionLost, None),
        (httpx.LocalProtocolError(f"Illegal header {SECRET}"), ConnectionLost, None),
        (httpx.DecodingError("x"), InvalidResponse, "not valid HTTP"),
        (ValueError("x"), InvalidResponse, "not valid HTTP"),
        (RuntimeError(SECRET), ConnectionLost, None),
        (
            wrapped(httpx.ReadError("x"), ConnectionResetError(errno.ECONNRESET, SECRET)),
            ConnectionLost,
            "Connection reset by peer",
        ),
        (
            wrapped(httpx.ConnectTimeout("x"), aiohttp.ServerDisconnectedError()),
            ConnectionLost,
            "the connection was closed",
        ),
        (
            wrapped(httpx.ConnectTimeout("x"), aiohttp.ClientOSError(errno.EPIPE, SECRET)),
            ConnectionLost,
            "Broken pipe",
        ),
        (
            wrapped(
                httpx.ConnectError("x"),
                ExceptionGroup(
                    "y", [OSError(errno.ENETUNREACH, "z"), OSError(errno.ECONNREFUSED, "")]
                ),
            ),
            ConnectError,
            "the connection was refused",
        ),
        (
            wrapped(httpx.ConnectError("x"), OSError(errno.EHOSTUNREACH, SECRET)),
            ConnectError,
            "No route to host",
        ),
    ],
)
def test_an_exception_of_a_foreign_transport(
    error: Exception, kind: type[TransportError], text: str | None
) -> None:
    found = translate(error, connected=None)
    assert (type(found), str(found)) == (kind, text or "the connection was closed")
    assert getattr(found, "refused", True) is (text == "the connection was refused") or (
        kind is not ConnectError
    )


class Stream(httpx.AsyncByteStream):
    """A body that ends with an exception."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"Hel"
        if self._error is not None:
            raise self._error
        await asyncio.sleep(20)


async def test_a_transport_of_the_callers_own() -> None:
    """It does not say when it is connected, so the first limit is for both phases."""

    async def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/silent":
            await asyncio.sleep(20)
        if request.url.path == "/slow":
            await asyncio.sleep(0.2)
        if request.url.path == "/refused":
            raise httpx.ConnectError(SECRET)
        return httpx.Response(200, stream=Stream(OSError(errno.EPIPE, SECRET)))

    transport = httpx.MockTransport(respond)
    async with HTTPClient(
        "http://engine", {}, Timeouts(0.1, 0.4, 1), transport=transport
    ) as client:
        with pytest.raises(ReadTimeout, match="no answer"):
            await client.open("GET", "/silent")
        with pytest.raises(ConnectError, match="the connection could not be made"):
            await client.open("GET", "/refused")
        assert (await client.open("GET", "/slow")).status == 200
        exchange = await client.open("GET", "/broken")
        assert await exchange.next() == b"Hel"
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="Broken pipe") as caught:
                await exchange.next()
            assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_server_that_returns_what_it_got(server: Server, make: MakeClient) -> None:
    """What parsers quote of an invalid response may be the request, with its key."""

    async def echo(connection: Connection) -> None:
        await connection.send(connection.request * 3)

    server.handler = echo
    client = make(server.url, {"Authorization": f"Bearer {SECRET}"})
    with pytest.raises(InvalidResponse) as caught:
        await client.open("POST", "/v1/x", f'{{"key": "{SECRET}"}}'.encode())
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@given(words=st.text(max_size=30), connected=st.sampled_from([True, False, None]), data=st.data())
def test_no_text_is_passed_on(words: str, connected: bool | None, data: st.DataObject) -> None:
    chain = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    number = data.draw(st.sampled_from([0, -2, errno.ECONNRESET, errno.ECONNREFUSED, 99999]))
    cause: BaseException = OSError(number, f"{words}{SECRET}")
    for kind in chain:
        cause = wrapped(made(kind, f"{words}{SECRET}{words}"), cause)
    error = translate(cause, connected=connected)
    assert isinstance(error, TransportError)
    assert SECRET not in f"{error} {error!r}"
    assert error.__cause__ is None
    assert error.__context__ is None
