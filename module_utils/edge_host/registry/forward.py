"""Passes connections of a fleet's hosts to the fleet's registry: the program of the unit.

systemd listens on the port and hands over its socket, so this process has no network of its own.
The registry's container has none at all: it listens on a Unix socket. Who is not of the fleet is
not passed on, and nobody is once the unit's time limit is over.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections import Counter
from contextlib import suppress
from typing import Counter as CounterOf
from typing import Iterable, Optional, Sequence, Set

from ..systemd import notify

CONNECT_SECONDS = 10.0
MOST_CONNECTIONS, MOST_OF_A_HOST = 512, 64
"""Connections at a time, of all hosts and of one: Docker takes three for an image's layers."""
MOST_REFUSALS = 100
"""Addresses that the log names."""
_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_BLOCK = 256 * 1024


class RegistryForward:
    """Passes connections from known addresses to a Unix socket."""

    def __init__(self, path: str, addresses: Iterable[str]) -> None:
        self.path = path
        self.allowed = {normalise(each) for each in addresses}
        self.open: CounterOf[str] = Counter()
        self.refused: Set[str] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until this is cancelled."""
        server = await asyncio.start_server(self.accept, sock=listener, limit=_BLOCK)
        notify("READY=1")
        async with server:
            await server.serve_forever()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, or end it at once."""
        peer = normalise(str((writer.get_extra_info("peername") or [""])[0]))
        reason = self._refusal(peer)
        if reason:
            writer.transport.abort()
            self._log(peer, reason)
            return
        self.open[peer] += 1
        try:
            await self._pass_on(reader, writer)
        finally:
            self.open[peer] -= 1
            if not self.open[peer]:
                del self.open[peer]
            writer.transport.abort()

    def _refusal(self, peer: str) -> Optional[str]:
        if peer not in self.allowed:
            return "it is no address of the fleet's hosts that pull images in this run"
        if self.open[peer] >= MOST_OF_A_HOST or sum(self.open.values()) >= MOST_CONNECTIONS:
            return "there are too many connections"
        return None

    def _log(self, peer: str, reason: str) -> None:
        """Name an address once: who connects again and again fills no log."""
        if peer not in self.refused and len(self.refused) < MOST_REFUSALS:
            self.refused.add(peer)
            print(f"A connection from {peer} was refused: {reason}.", file=sys.stderr, flush=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.wait_for(
                asyncio.open_unix_connection(self.path, limit=_BLOCK), CONNECT_SECONDS
            )
        except (OSError, asyncio.TimeoutError) as error:
            print(f"The registry at {self.path} does not answer: {error}.", file=sys.stderr)
            return
        ways = [
            asyncio.ensure_future(_copy(reader, inner_writer)),
            asyncio.ensure_future(_copy(inner_reader, writer)),
        ]
        try:
            # A client that has ended wants no more of the answer.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            inner_writer.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until one side ends; what was read is sent before the end is passed on."""
    with suppress(OSError):
        while True:
            block = await source.read(_BLOCK)
            if not block:
                break
            sink.write(block)
            await sink.drain()
        sink.close()
        await sink.wait_closed()


def normalise(address: str) -> str:
    """An IP address in one form: IPv4 also where a socket of IPv6 has it, and without a zone.

    Raises ValueError for another text.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def take_listener() -> socket.socket:
    """The listening socket that systemd has handed over. Raises OSError where there is none."""
    if (os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")) != (str(os.getpid()), "1"):
        raise OSError("systemd has handed over no socket")
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    listener.setblocking(False)
    os.set_inheritable(listener.fileno(), False)
    return listener


def become(user: int) -> None:
    """Give all privileges up: run as the user with this number, and as its group alone."""
    if os.getuid() != user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def main(arguments: Sequence[str]) -> int:
    """Serve as a user: its number, the registry's socket, and the addresses that are passed on."""
    user, path, *addresses = arguments
    become(int(user))
    try:
        forward = RegistryForward(path, addresses)
        listener = take_listener()
    except (OSError, ValueError) as error:
        print(
            f"The forward to the registry cannot start: {error}. Run site.yml, which starts"
            " edge-llm-registry.socket.",
            file=sys.stderr,
        )
        return 1
    with suppress(KeyboardInterrupt):
        asyncio.run(forward.serve(listener))
    return 0
