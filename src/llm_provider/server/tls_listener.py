"""Connections of a port for HTTPS, from their first byte on.

The event loop's own TLS servers show a connection only once its handshake is done, and close one
that is not TLS without a word. Here the guard knows it from the start.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Callable

from llm_provider.server.connection_guard import Admission, Connection, ConnectionGuard, Rest
from llm_provider.server.connection_limits import LimitedProtocol
from llm_provider.server.tls import Certificate

RETRY_SECONDS = 1.0
"""After the system had no file descriptor, or no memory, for a connection."""
_AT_ONCE = 64
_HEAD = 9
"""Bytes of a record's head, and of its first message's (RFC 8446, sections 5.1 and 4)."""
_HANDSHAKE = 22
_MOST_HELLO = 16 * 1024
"""Bytes of a client's first message. OpenSSL takes 128 KiB, which event loop and OpenSSL hold three
times over until it is complete: 512 such connections would take 220 MiB."""

_log = logging.getLogger("llm_provider.tls")


class TLSListener:
    """Accepts the connections of one listening socket.

    `protocol` makes the HTTP protocol of one. It gets those that are not TLS too, as `https_only`.
    """

    def __init__(
        self,
        listener: socket.socket,
        guard: ConnectionGuard,
        certificate: Certificate,
        protocol: Callable[[], LimitedProtocol],
    ) -> None:
        self.guard = guard
        self.certificate = certificate
        self.protocol = protocol
        self.arrivals: set[Arrival] = set()
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._accepts = True
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def shut(self) -> None:
        """Accept no more; those there are go on. A second time is nothing."""
        if self._retry is not None:
            self._retry.cancel()
        if self._accepts:
            self._accepts = False
            self._loop.remove_reader(self._listener)

    async def close(self) -> None:
        """Accept no more, and cut those whose handshake is not done."""
        self.shut()
        for arrival in [*self.arrivals]:
            arrival.evict()
        tasks = [each.task for each in self.arrivals if each.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # none left, or another process was faster
            except OSError as error:
                _log.error("no connection can be accepted: %s", error)
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(
                    RETRY_SECONDS, self._loop.add_reader, self._listener, self._accept
                )
                return
            connection.setblocking(False)
            Arrival(self, connection, address[0])


class Arrival(Connection):
    """One connection until its HTTP protocol takes over, as the guard sees it."""

    def __init__(self, listener: TLSListener, connection: socket.socket, address: str) -> None:
        self._listener = listener
        self._socket = connection
        self._address = address
        self._loop = asyncio.get_running_loop()
        limits = listener.guard.limits
        self.deadline = self._loop.time() + limits.first_byte_seconds
        self.task: asyncio.Task[None] | None = None
        if listener.guard.admit(self, address) is not Admission.ADMITTED:
            # An answer would need a handshake, which costs more than an answer.
            listener.guard.leave(self)
            connection.close()
            return
        listener.arrivals.add(self)
        # With fewer bytes it is not readable.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _HEAD)
        self._loop.add_reader(connection, self._look)

    @property
    def rest(self) -> Rest:
        """The guard's question."""
        return Rest.SILENT if self.task is None else Rest.INCOMPLETE

    def expire(self) -> None:
        """The guard's order: too little came, or the handshake took too long."""
        if self.task is not None:
            self._listener.guard.drop(self, "TLS handshake: too slow", self._address)
        self.evict()

    def evict(self) -> None:
        """The guard's order: make room."""
        self.deadline = math.inf
        if self.task is not None:
            self.task.cancel()
        else:
            self._loop.remove_reader(self._socket)
            self._end()

    def _look(self) -> None:
        """See what the first bytes are, and leave them where they are."""
        try:
            first = self._socket.recv(_HEAD, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:
            self.evict()
            return
        tls = first[0] == _HANDSHAKE
        if tls and not _is_small_hello(first):
            self._listener.guard.drop(self, "TLS handshake: first message", self._address)
            self.evict()
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._loop.remove_reader(self._socket)
        self.deadline = self._loop.time() + self._listener.guard.limits.header_seconds
        self.task = self._loop.create_task(self._go_on(tls=tls))
        self.task.add_done_callback(self._end)

    async def _go_on(self, *, tls: bool) -> None:
        listener = self._listener
        protocol = listener.protocol()
        protocol.arrival = self
        protocol.https_only = not tls
        try:
            if tls:
                await self._loop.connect_accepted_socket(
                    lambda: protocol,
                    self._socket,
                    ssl=listener.certificate.context,
                    ssl_handshake_timeout=listener.guard.limits.header_seconds + RETRY_SECONDS,
                )
            else:
                await self._loop.connect_accepted_socket(lambda: protocol, self._socket)
        except OSError as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            listener.guard.drop(self, f"TLS handshake: {reason}", self._address)

    def _end(self, task: asyncio.Task[None] | None = None) -> None:
        self._listener.guard.leave(self)
        self._listener.arrivals.discard(self)
        if task is None or task.cancelled():
            self._socket.close()  # a second time is nothing


def _is_small_hello(head: bytes) -> bool:
    """Whether a record begins with a message of bounded size, whose length is in this record."""
    record, message = int.from_bytes(head[3:5]), int.from_bytes(head[6:9])
    return len(head) == _HEAD and record >= 4 and message <= _MOST_HELLO
