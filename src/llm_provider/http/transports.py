"""The transports of httpx that the client uses: httpx's own, and aiohttp's.

Both open one connection for each request, send nothing twice, follow no redirect, keep no cookie,
and take nothing from the environment. Both report when a connection has been made, which separates
"nothing was sent" from "the request may have run".
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from httpx_aiohttp import AiohttpTransport

from llm_provider.http.errors import InvalidSetting

MAX_HEAD_BYTES = 64 * 1024
"""The size of a response's head, at most."""

_READ_BUFFER = 64 * 1024
# aiohttp limits each header and their number: it reads 8 MiB of them at most.
_MAX_FIELD = MAX_HEAD_BYTES
_MAX_FIELDS = 128
# A name may lead to another address when its container has been replaced.
_NAME_SECONDS = 2

Verify = bool | str | Path | ssl.SSLContext
"""Which certificates are accepted: the system's, those of a CA file, a context's; False: any."""


class Attempt:
    """One request's way to a connection: `connected` once it is there."""

    def __init__(self, on_connected: Callable[[], None]) -> None:
        self.connected = False
        self._on_connected = on_connected

    def succeed(self) -> None:
        """The request has a connection, and is sent from now on."""
        self.connected = True
        self._on_connected()


current_attempt: ContextVar[Attempt | None] = ContextVar("current_attempt", default=None)
"""The attempt that aiohttp's transport reports to: that of the task's request."""


def default_transport(verify: Verify, *, tls: bool) -> httpx.AsyncBaseTransport:
    """Return the transport of a client that is given none (docs/http-client.md has the reason)."""
    return aiohttp_transport(verify, tls=tls)


def httpx_transport(verify: Verify = True, *, tls: bool = True) -> httpx.AsyncHTTPTransport:
    """Return httpx's own transport. Without `tls`, no certificates are loaded."""
    return httpx.AsyncHTTPTransport(
        verify=_context(verify, tls),
        trust_env=False,
        http2=False,
        retries=0,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


def aiohttp_transport(verify: Verify = True, *, tls: bool = True) -> AiohttpTransport:
    """Return aiohttp's transport. Without `tls`, no certificates are loaded."""
    context = _context(verify, tls)
    return _AiohttpTransport(verify=context, trust_env=False, client=lambda: _session(context))


def reports_connections(transport: httpx.AsyncBaseTransport) -> bool:
    """Whether the client learns from a transport when a request has a connection."""
    return isinstance(transport, httpx.AsyncHTTPTransport | _AiohttpTransport)


def _context(verify: Verify, tls: bool) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, str | Path):
        try:
            return ssl.create_default_context(cafile=os.fspath(verify))
        except OSError as error:  # ssl.SSLError is one
            raise InvalidSetting(
                f"The CA file {os.fspath(verify)!r} cannot be used: {error.strerror or error}."
            ) from None
    if verify and tls:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = _Connector(
        ssl=context,
        limit=0,
        force_close=True,
        ttl_dns_cache=_NAME_SECONDS,
        resolver=aiohttp.ThreadedResolver(),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        max_line_size=_MAX_FIELD,
        max_field_size=_MAX_FIELD,
        max_headers=_MAX_FIELDS,
    )


class _AiohttpTransport(AiohttpTransport):
    """aiohttp's transport with this module's session, and with bodies that are read completely."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        received = getattr(response.stream, "_aiohttp_response", None)
        if isinstance(received, aiohttp.ClientResponse):
            response.stream = _Stream(received)
        return response


class _Stream(httpx.AsyncByteStream):
    """A body, of which no byte is lost that came before its connection was."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while part := await content.readany():
                yield part
        except Exception:
            # aiohttp's readers raise before they return what they still have.
            if rest := content._read_nowait(-1):
                yield rest
            raise

    async def aclose(self) -> None:
        self._response.close()


class _Connector(aiohttp.TCPConnector):
    """Reports each connection, and gives none to a request that has been sent before."""

    async def connect(self, req: ClientRequest, *args: Any, **options: Any) -> Connection:
        attempt = current_attempt.get()
        if attempt is not None and attempt.connected:
            # aiohttp sends a GET again whose connection was lost, although it may have run.
            raise aiohttp.ServerDisconnectedError
        try:
            connection = await super().connect(req, *args, **options)
        except BaseException:
            self.clear_dns_cache()
            raise
        transport = connection.transport
        if transport is not None:
            # aiohttp's own closing would first send what is left of the request.
            connection.add_callback(transport.abort)
        if attempt is not None:
            attempt.succeed()
        return connection
