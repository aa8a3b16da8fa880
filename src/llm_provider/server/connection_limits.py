"""HTTP connections with limits: headers, their time, and connections.

Uvicorn's HTTP protocol sets no limit to headers, closes an idle connection only after an answer,
and drops the body of a request that offers another protocol (Kludex/uvicorn, issue 2722). So its
internals are used here, and those of its server in `uvicorn_server`; nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_provider.server.connection_guard import Admission, Connection, ConnectionGuard, Rest
from llm_provider.server.limits import MIB, Limits

UVICORN = "0.54.0"
"""The version whose internals are used; a test compares it, and them, with the installed one."""
LINGER_SECONDS = 2.0
"""How long a refused connection stays open, and what arrives is dropped: closing at once would
reset the connection, and the client might not read the answer."""
MOST_PIPELINED = 8
"""Requests of one connection that wait for the answer to the one before. Few clients do that."""
DRAIN_BYTES = 64 * MIB
"""Of a body that arrives after its answer, until the connection is closed."""
HTTPS_ONLY = "This port answers HTTPS only. Use https:// in place of http:// in the address."


class _RefusedError(Exception):
    """Ends the parser's work; raised in its callbacks once a request is refused."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `limited_protocol` makes the class that uvicorn is given.

    `arrival` is what the guard has counted this connection as until now. With `https_only`, every
    request is refused: it came in clear to a port for HTTPS.
    """

    guard: ConnectionGuard
    arrival: Connection | None = None
    https_only = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits: Limits = self.guard.limits
        self.timeout_keep_alive = math.ceil(self._limits.keep_alive_seconds)
        # A WebSocket would take the connection over, and leave the guard's count.
        self.ws_protocol_class = None
        self.deadline = math.inf
        self._closing = False
        self._lingering = False
        self._heard = False
        self._in_header = False
        self._in_body = False
        self._is_repeated = False
        self._steps = 0
        self._header_bytes = 0
        self._silent_bytes = 0
        self._drained = 0

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_within(self._limits.first_byte_seconds)
        if self.arrival is not None:
            self.guard.leave(self.arrival)
            self.arrival = None
        admission = self.guard.admit(self, self.client[0] if self.client else None)
        if admission in (Admission.DROPPED, Admission.NOT_ALLOWED):
            transport.abort()
        elif self.https_only:
            self._refuse(400, HTTPS_ONLY, "https_only")
        elif admission is not Admission.ADMITTED:
            self._answer(
                503,
                f"The chat API has {admission.value}. Try again later.",
                "too_many_connections",
            )
            self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.leave(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    @property
    def rest(self) -> Rest | None:
        """The guard's question."""
        if self._answering or self.transport.is_closing() or self._lingering:
            return None
        if self.transport.get_write_buffer_size():
            return None  # the client still reads an answer
        if self._in_header:
            return Rest.INCOMPLETE
        # Also while the rest of a body arrives, for which nobody waits.
        return Rest.IDLE if self._heard else Rest.SILENT

    def expire(self) -> None:
        """The guard's order: the connection's time is over."""
        if self._lingering or self._closing:
            # The client does not take what is left of an answer, or does not close its side.
            self.transport.abort()
        elif self.transport.is_closing():
            self._close()  # uvicorn has closed it; what is left of the answer gets some time
        elif self._answering:
            # The next request is late, and the answer to this one goes on; then it is over.
            self.cycle.keep_alive = False
            self.deadline = math.inf
        elif self._in_header:
            self._refuse(
                408,
                f"The header of the request did not end within {self._limits.header_seconds:g} s.",
                "header_timeout",
            )
        else:
            self._close()

    def evict(self) -> None:
        """The guard's order: make room."""
        self._close()

    def _close(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._closing = True
        self._end_within(self._limits.keep_alive_seconds if unsent else LINGER_SECONDS)
        self.transport.close()

    # What arrives.

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        self._heard = True
        view = memoryview(data)
        while view and not self._lingering and not self.transport.is_closing():
            # In pieces no larger than what a header may still have: the parser collects a header's
            # bytes itself, and has no limit.
            size = self._limits.max_header_bytes
            part = view[: size if self._in_body else size - self._header_bytes]
            view = view[self._feed(part) :]

    def _feed(self, part: memoryview) -> int:
        """Take in the next bytes; returns how many of them have been read."""
        was_between = not (self._in_header or self._in_body)
        in_body, steps = self._in_body, self._steps
        self._silent_bytes += len(part)
        read = self._parse(part)
        if self._lingering or self.transport.is_closing():
            return read
        if self._in_body:
            # Trailers, and extensions of chunks: no callback until a line ends.
            if self._silent_bytes > self._limits.max_header_bytes:
                self._refuse(431, "The body has trailers that are too large.", "header_too_large")
            return read
        if steps == self._steps and not in_body:
            self._header_bytes += len(part)  # more of the same header, or blank lines
        elif was_between and steps + 1 == self._steps:
            self._header_bytes = len(part)  # the start of a header
        else:
            self._header_bytes = 0
        if self._header_bytes >= self._limits.max_header_bytes:
            self._refuse(
                431,
                f"The header of the request has more than {self._limits.max_header_bytes} bytes.",
                "header_too_large",
            )
        return read

    def _parse(self, part: memoryview) -> int:
        """Have the parser call back; returns how many bytes it has read.

        An offer of another protocol is ignored, as a server may (RFC 9110, section 7.8): clients
        of Java offer HTTP/2 with every request. The parser ends such a request with its header, so
        the lines that tell how long the body is are repeated: else it would be read as requests.
        """
        self._unset_keepalive_if_required()
        try:
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as offer:
                if framing := self._framing:
                    self._is_repeated = True
                    self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % framing)
                return int(offer.args[0])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        return len(part)

    @property
    def _framing(self) -> bytes:
        """The header's lines that say that a body follows, and how it ends."""
        return b"".join(
            b"%s: %s\r\n" % (name, value)
            for name, value in self.headers
            if name == b"transfer-encoding" or (name == b"content-length" and int(value))
        )

    def on_message_begin(self) -> None:
        if self._is_repeated:
            return
        super().on_message_begin()
        self._steps += 1
        self._in_header = True
        self._header_bytes = 0
        self._end_within(self._limits.header_seconds)

    def on_url(self, url: bytes) -> None:
        if self._is_repeated:
            return
        super().on_url(url)
        if len(self.url) > self._limits.max_request_line_bytes:
            self._refuse(
                414,
                f"The URL has more than {self._limits.max_request_line_bytes} bytes.",
                "url_too_long",
            )
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            # Trailers are not part of the header: a client could add a credential, or the address
            # of a proxy, behind the back of whoever has checked the header.
            return
        super().on_header(name, value)
        if len(self.headers) > self._limits.max_headers:
            self._refuse(
                431,
                f"The request has more than {self._limits.max_headers} header fields.",
                "too_many_headers",
            )
            raise _RefusedError

    def on_headers_complete(self) -> None:
        if self._is_repeated:
            self._is_repeated = False
            return
        self._steps += 1
        self._in_header = False
        self._in_body = True
        self._header_bytes = self._silent_bytes = self._drained = 0
        self.deadline = math.inf
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refuse(400, "The connection has too many requests at once.", "pipelined")
            raise _RefusedError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        if self.cycle.response_complete:
            self._drained += len(body)
            if self._drained > DRAIN_BYTES:
                self.transport.abort()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._framing:
            return  # the body is to come
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_header and not self._answering:
            # Also while the body still arrives: nobody waits for it any more.
            self._end_within(self._limits.keep_alive_seconds)

    # Refusals.

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and (not self.cycle.response_complete or bool(self.pipeline))

    def _refuse(self, status: int, message: str, code: str) -> None:
        """End the connection, with an answer where no other answer would be cut in two."""
        lingers = self.guard.refuse(self, code, self.client[0] if self.client else None)
        if self._answering or not lingers:
            self._lingering = True
            self.transport.abort()
            return
        self._answer(status, message, code)
        self._linger()

    def _answer(self, status: int, message: str, code: str) -> None:
        self._unset_keepalive_if_required()
        self.transport.write(error_answer(status, message, code))

    def _linger(self) -> None:
        self._lingering = True
        self._end_within(LINGER_SECONDS)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and an exception of a callback."""
        if not self._lingering and not self.transport.is_closing():
            self._refuse(400, msg, "invalid_http")

    def _end_within(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds


def error_answer(status: int, message: str, code: str) -> bytes:
    """Return an answer in OpenAI's format, after which the connection ends."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    retry = "retry-after: 5\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body


def limited_protocol(guard: ConnectionGuard) -> type[LimitedProtocol]:
    """Return the class for `uvicorn.Config(http=...)`, whose connections `guard` counts."""
    return type("GuardedProtocol", (LimitedProtocol,), {"guard": guard})
