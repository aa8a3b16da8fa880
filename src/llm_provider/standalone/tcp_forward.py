"""A TCP forward to the engine, for programs on the host itself: bytes both ways, unread.

The chat API runs it, since it knows which engine is there now. A swap may cut it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
MOST = 64
"""Connections at a time; a further one is closed at once."""
_CHUNK = 32 * 1024
"""Bytes that each way of a connection buffers, a few times over."""
_LOG_SECONDS = 10.0

_log = logging.getLogger("llm_provider.tcp_forward")


class TCPForward:
    """Forwards each connection to the address that `upstream` returns when it is accepted."""

    def __init__(self, upstream: Callable[[], str]) -> None:
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._logged_at = -math.inf

    async def serve(self, listener: socket.socket) -> None:
        """Take connections from `listener`."""
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_CHUNK)

    def shut(self) -> None:
        """Take no more; those there are go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Take no more, and cut those there are."""
        self.shut()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST:
            self._refuse(writer)
            return
        task = asyncio.create_task(self._forward(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    def _refuse(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            _log.warning("connections to the engine are refused: %d are open", len(self._open))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(self._upstream())
        port = address.port or (443 if address.scheme == "https" else 80)
        with closing(writer):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    answers, engine = await asyncio.open_connection(
                        address.hostname, port, limit=_CHUNK
                    )
            except OSError as error:
                _log.warning("the engine cannot be reached: %s", error)
                return
            with closing(engine):
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(_copy(reader, engine))
                        both.create_task(_copy(answers, writer))
                except* OSError:
                    pass  # one side broke off; the other learns of it now


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read, no faster than it is taken, and pass its end on."""
    writer.transport.set_write_buffer_limits(_CHUNK)
    # Asked before each write: uvloop raises for what another loop would drop.
    while (data := await reader.read(_CHUNK)) and not writer.is_closing():
        writer.write(data)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()
