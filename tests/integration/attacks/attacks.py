"""Attacks on a port of loopback, for tests and measurements: all of them are bounded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

MIB = 1024 * 1024
HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


@dataclass
class Attack:
    """Connections to a port, from several addresses of loopback."""

    port: int
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def open(
        self, count: int, data: bytes = b"", source: str = "127.0.0.1"
    ) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open so many that send `data` and nothing more."""
        made = []
        for _ in range(count):
            made.append(
                await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
            )
            made[-1][1].write(data)
        self.opened += made
        return made

    def close(self) -> None:
        for _, writer in self.opened:
            writer.transport.abort()
        self.opened.clear()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end; nothing where the connection was reset."""
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionResetError:
        return b""


async def flood(port: int, head: bytes, piece: bytes, total: int) -> tuple[bytes, int]:
    """Send `head`, then `piece` until `total` bytes or the end: the answer, the bytes sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    try:
        writer.write(head)
        while sent < total and not reader.at_eof():
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        return await rest(reader), sent
    except OSError:
        return b"", sent
    finally:
        writer.transport.abort()


def large(part: bytes) -> bytes:
    """A body of 4 MiB, of a list of such parts."""
    start, end = b'{"messages": [{"role": "user", "content": "x"}], "other": [', b"0]}"
    return start + part * ((4 * MIB - len(start) - len(end)) // len(part)) + end
