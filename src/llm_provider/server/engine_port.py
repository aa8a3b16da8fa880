"""The engine's own API for programs on the host itself, at port 11434: every request needs the
engine's key, and is passed on as it is.

No engine asks for its key at every route (llama.cpp shows /health and /models to all), and Ollama
has none. Bodies and answers are streams in both directions: nothing is kept. Each request is put to
the engine of its moment; a change of the engine may cut an answer.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network
from urllib.parse import urlsplit

import httpx
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from llm_provider.errors import ConfigurationError
from llm_provider.http.errors import ConnectError
from llm_provider.http.translation import translate
from llm_provider.http.transports import Attempt, current_attempt, default_transport
from llm_provider.server.api_errors import MAY_HAVE_RUN, APIError
from llm_provider.server.key_store import presented_keys
from llm_provider.server.limits import Limits

CONNECT_SECONDS = 5.0
MOST_CONNECTIONS = 64
"""Connections at a time, of programs on the host itself."""
_BAD_KEY = (
    "{} Send the engine's key as 'Authorization: Bearer KEY' or 'x-api-key: KEY'; root reads it in"
    " secrets/engine_key of the project's folder on the host (/opt/edge-llm)."
)
# Headers of one connection (RFC 9110, section 7.6.1), and those that are this program's to set.
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
_OWN = frozenset({b"host", b"authorization", b"x-api-key", b"expect"})

_STOPPED = APIError(
    503,
    "The chat API stopped before the engine answered.",
    type="server_error",
    code="stopped",
    headers=MAY_HAVE_RUN,
)

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
RawHeaders = Iterable[tuple[bytes, bytes]]
_log = logging.getLogger("llm_provider.engine_port")


def port_limits(limits: Limits, *, host_only: bool) -> Limits:
    """Return the limits of the port's connections: all come from one address, the host's.

    `host_only` refuses those of other addresses: where the kernel routes 127.0.0.0/8 on all
    interfaces (`route_localnet`), a neighbour can connect to a socket at 127.0.0.1. It is not for
    sockets of a container, which sees its network's addresses in place of the host's.
    """
    return replace(
        limits,
        max_connections=MOST_CONNECTIONS,
        max_connections_per_address=MOST_CONNECTIONS,
        allowed_networks=_LOOPBACK if host_only else (),
    )


class EnginePort:
    """The port as an ASGI application.

    `upstream` returns the engine's address of the moment, and `key` its key, None where it has
    none: nothing is passed on then.
    """

    def __init__(self, upstream: Callable[[], str], key: Callable[[], str | None]) -> None:
        self._upstream = upstream
        self._key = key
        self._transports: dict[bool, httpx.AsyncBaseTransport] = {}

    async def close(self) -> None:
        """Close the connections to engines."""
        for transport in self._transports.values():
            await transport.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            await send(message)
            begun = True

        try:
            key = self._check(Headers(scope=scope))
            await self._pass_on(scope, receive, answer, key)
        except APIError as error:
            await error.response()(scope, receive, send)
        except _EngineError as error:
            if not begun:
                await _unreachable(error).response()(scope, receive, send)
                return
            # The connection is closed now, and so the client learns that the answer is not whole.
            _log.warning("an answer of the engine broke off: %s", error)
        except asyncio.CancelledError:
            if not begun:
                await _STOPPED.response()(scope, receive, send)

    def _check(self, headers: Headers) -> str:
        """Return the engine's key where the request has it. Raises APIError."""
        try:
            key = self._key()
        except ConfigurationError as error:
            _log.error("%s", error)
            key = None
        if key is None:
            raise APIError(
                503,
                "The engine's key is missing on the host, and without it no request is passed on."
                " Run site.yml.",
                type="server_error",
                code="no_engine_key",
            )
        presented = presented_keys(headers.get("authorization"), headers.get("x-api-key"))
        if not presented:
            raise _unauthorized("The request has no key.")
        wanted = sha256(key.encode()).digest()
        # All are compared, each in constant time: the time says nothing.
        matches = [hmac.compare_digest(sha256(x.encode()).digest(), wanted) for x in presented]
        if not any(matches):
            raise _unauthorized("The key is not valid.")
        return key

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        """Pass the request on and its answer back, until the client leaves.

        Raises _EngineError, APIError.
        """
        body = _RequestBody(Headers(scope=scope), receive)
        work = asyncio.create_task(
            self._exchange(_request(self._upstream(), scope, body, key), send)
        )
        left = asyncio.create_task(body.client_left())
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _exchange(self, request: httpx.Request, send: Send) -> None:
        """Send the request to the engine, and its answer to the client. Raises _EngineError."""
        async with self._answer(request) as answer:
            begin: Message = {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": list(_end_to_end(answer.headers.raw)),
            }
            await send(begin)
            async for part in _parts(answer):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncGenerator[httpx.Response, None]:
        """Send the request; entered once the head of its answer is there. Raises _EngineError."""
        tls = request.url.scheme == "https"
        if tls not in self._transports:
            self._transports[tls] = default_transport(True, tls=tls)
        attempt = Attempt(lambda: None)
        token = current_attempt.set(attempt)
        try:
            answer = await self._transports[tls].handle_async_request(request)
        except Exception as error:
            raise _failure(error, connected=attempt.connected) from error
        finally:
            current_attempt.reset(token)
        try:
            yield answer
        finally:
            await answer.aclose()


class _EngineError(Exception):
    """The engine cannot be reached, or broke its answer off."""


def _failure(error: Exception, *, connected: bool) -> _EngineError:
    translated = translate(error, connected=connected)
    words = str(translated)
    return _EngineError(
        words if isinstance(translated, ConnectError) else f"after it began, {words}"
    )


async def _parts(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The parts of an answer, as they come. Raises _EngineError."""
    try:
        async for part in answer.aiter_raw():
            yield part
    except Exception as error:
        raise _failure(error, connected=True) from error


class _RequestBody:
    """The body of a request as it comes, and the client's end behind it."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self.expected = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._receive = receive
        self._read = asyncio.Event()
        self._left = asyncio.Event()
        if not self.expected:
            self._read.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._left.set()
                self._read.set()
                raise ClientDisconnect
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                self._read.set()
                return

    async def client_left(self) -> None:
        """Wait until the client has left; what follows the body is read for that."""
        await self._read.wait()
        while not self._left.is_set():
            if (await self._receive())["type"] == "http.disconnect":
                self._left.set()


def _request(upstream: str, scope: Scope, body: _RequestBody, key: str) -> httpx.Request:
    """The request as the engine gets it. Raises APIError where it has no such target."""
    base = urlsplit(upstream)
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    target = base.path.rstrip("/").encode() + path + (b"?" + query if query else b"")
    headers = [(name, value) for name, value in _end_to_end(scope["headers"]) if name not in _OWN]
    headers.append((b"authorization", b"Bearer " + key.encode()))
    timeout = {"connect": CONNECT_SECONDS, "pool": CONNECT_SECONDS, "read": None, "write": None}
    # Not together with the target: an address that is wrong is not the client's error.
    url = httpx.URL(scheme=base.scheme, host=base.hostname, port=base.port)
    try:
        url = url.copy_with(raw_path=target)
    except (httpx.InvalidURL, ValueError) as error:
        raise APIError(
            400,
            f"The request's target is invalid: {error}. Send a path that begins with '/'.",
            code="invalid_target",
        ) from error
    return httpx.Request(
        scope["method"],
        url,
        headers=headers,
        content=body if body.expected else None,
        extensions={"timeout": timeout},
    )


def _end_to_end(headers: RawHeaders) -> RawHeaders:
    """The headers that are not of one connection alone, names in lower case."""
    found = [(name.lower(), value) for name, value in headers]
    named = {
        each.strip().lower()
        for name, value in found
        if name == b"connection"
        for each in value.split(b",")
    }
    return [(name, value) for name, value in found if name not in _HOP_BY_HOP | named]


def _unreachable(error: _EngineError) -> APIError:
    return APIError(
        502,
        f"The engine does not answer: {error}.",
        type="server_error",
        code="engine_unreachable",
        headers=MAY_HAVE_RUN,
    )


def _unauthorized(reason: str) -> APIError:
    return APIError(
        401,
        _BAD_KEY.format(reason),
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
