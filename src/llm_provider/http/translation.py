"""Exceptions of httpx, httpcore, h11, aiohttp and the operating system as this package's errors.

Their texts can contain the request's headers (h11 quotes an illegal header), or bytes of the
response (aiohttp quotes what its parser refused), so none of their texts is passed on.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator

import httpx

from llm_provider.http.errors import (
    ConnectError,
    ConnectionLost,
    InvalidResponse,
    ReadTimeout,
    TransportError,
)

# httpx and aiohttp name the same event differently; of aiohttp's the names are compared, so that
# the package need not be imported where its transport is not used.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_NOT_SENT_NAMES = frozenset({"ClientConnectorError", "ConnectionTimeoutError"})
_LOST_NAMES = frozenset({"ServerDisconnectedError", "ClientOSError", "ClientPayloadError"})
_INVALID_NAMES = frozenset(
    {"BadHttpMessage", "HttpProcessingError", "ClientResponseError", "RemoteProtocolError"}
)
# How h11, httpcore and aiohttp describe a connection that ended inside a response.
_ENDED = ("Server disconnected", "peer closed connection", "Not enough data")


def translate(error: BaseException, *, connected: bool | None) -> TransportError:
    """Return the error of this package for one of a transport.

    `connected`: whether the request was sent after the connection had been made; None where the
    transport does not report connections.
    """
    chain = list(_chain(error))
    if connected is None:
        connected = not _is_not_sent(error, chain)
    if not connected:
        return _connect_error(chain)
    if isinstance(error, httpx.TimeoutException) and not _named(chain, _LOST_NAMES):
        return ReadTimeout("silence")
    if _is_invalid(chain):
        return InvalidResponse("not valid HTTP")
    reason = _tls_text(chain) or _os_error_text(chain)
    return ConnectionLost(reason or "the connection was closed")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, its causes, and the members of groups; each once."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        waiting.append(one.__cause__ or one.__context__)


def _named(chain: list[BaseException], names: frozenset[str]) -> bool:
    return any(kind.__name__ in names for one in chain for kind in type(one).__mro__)


def _is_not_sent(error: BaseException, chain: list[BaseException]) -> bool:
    if _named(chain, _NOT_SENT_NAMES):
        return True
    # httpx-aiohttp calls each connection that aiohttp has lost a ConnectTimeout.
    return isinstance(error, _NOT_SENT) and not _named(chain, _LOST_NAMES)


def _is_invalid(chain: list[BaseException]) -> bool:
    if any(text in _words(one) for one in chain for text in _ENDED):
        return False
    if any(isinstance(one, httpx.DecodingError | UnicodeError | ValueError) for one in chain):
        return not any(isinstance(one, OSError) for one in chain)
    return _named(chain, _INVALID_NAMES)


def _words(error: BaseException) -> str:
    """Return an exception's text, to compare it; some of aiohttp's classes fail to give theirs."""
    try:
        return str(error)
    except Exception:
        return ""


def _connect_error(chain: list[BaseException]) -> ConnectError:
    if text := _tls_text(chain):
        return ConnectError(text)
    if any(isinstance(one, OSError) and one.errno == errno.ECONNREFUSED for one in chain):
        return ConnectError("the connection was refused", refused=True)
    if text := _os_error_text(chain):
        return ConnectError(text)
    if any(isinstance(one, TimeoutError | httpx.TimeoutException) for one in chain):
        return ConnectError("no answer to the attempt to connect")
    return ConnectError("the connection could not be made")


def _tls_text(chain: list[BaseException]) -> str | None:
    """Return OpenSSL's words for a failure of TLS. Not every class of aiohttp has them."""
    errors = [one for one in chain if isinstance(one, ssl.SSLError)]
    for one in errors:
        if words := getattr(one, "verify_message", None):
            return f"its TLS certificate was refused: {words.rstrip('.')}"
    for one in errors:
        if words := getattr(one, "reason", None):
            return f"TLS failed: {words}"
    return "TLS failed" if errors else None


def _os_error_text(chain: list[BaseException]) -> str | None:
    """Return the system's own words for the first error number; not an exception's text."""
    for one in chain:
        if isinstance(one, socket.gaierror):
            return (one.strerror or "the name cannot be resolved").rstrip(".")
        if isinstance(one, ssl.SSLError):
            continue  # its number is OpenSSL's
        if isinstance(one, OSError) and isinstance(one.errno, int) and one.errno > 0:
            return os.strerror(one.errno)
    return None
