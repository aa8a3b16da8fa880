"""Compare transports of the HTTP client with one another and with a bare connection.

    python -m benchmarks.http_clients [--seconds 100]

A server in a process of its own streams server-sent events; all clients read them in this process,
on uvloop as the chat API does, in turn, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import uvloop

from llm_provider.http.client import HTTPClient
from llm_provider.http.transports import aiohttp_transport, httpx_transport

EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"smollm2-135m",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
CHUNK = f"{len(EVENT):x}\r\n".encode() + EVENT + b"\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
BODY = b'{"model": "smollm2-135m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
# Milliseconds between two events, and events of a stream.
PACES = {0: 200, 9: 20}
PARALLEL = (1, 4, 32)
BARE = "bare connection"


# The server.


async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request: its path is /MILLISECONDS."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY))
        pace = int(head.split(b" ", 2)[1][1:])
        writer.write(HEAD)
        for _ in range(PACES[pace]):
            writer.write(CHUNK)
            await asyncio.sleep(pace / 1000)
            await writer.drain()
        writer.write(LAST)
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def serve() -> None:
    server = await asyncio.start_server(stream, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# The clients.


class Client(Protocol):
    def read(self, pace: int) -> AsyncIterator[bytes]:
        """The parts of one streamed body."""

    async def close(self) -> None: ...


class Bare:
    """What a connection costs by itself; the parts are neither parsed nor checked."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._head = f"HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()

    async def read(self, pace: int) -> AsyncIterator[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"POST /{pace} ".encode() + self._head + BODY)
        try:
            while part := await reader.read(65536):
                yield part
        finally:
            writer.close()

    async def close(self) -> None:
        pass


class Ours:
    """The client of this project with one of its transports."""

    def __init__(self, client: HTTPClient) -> None:
        self._client = client

    async def read(self, pace: int) -> AsyncIterator[bytes]:
        async with await self._client.open("POST", f"/{pace}", BODY) as exchange:
            while part := await exchange.next():
                yield part

    async def close(self) -> None:
        await self._client.close()


def clients(port: int) -> dict[str, Client]:
    url = f"http://127.0.0.1:{port}"
    found: dict[str, Client] = {BARE: Bare(port)}
    found["httpx"] = Ours(HTTPClient(url, transport=httpx_transport(tls=False)))
    found["httpx with aiohttp"] = Ours(HTTPClient(url, transport=aiohttp_transport(tls=False)))
    return found


# Measurements.


@dataclass
class Cell:
    """One client at one pace and parallelism, over all rounds."""

    first: list[float] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0
    cpu: float = 0.0


async def measure(client: Client, pace: int, parallel: int, seconds: float, cell: Cell) -> None:
    """Read streams, `parallel` at a time, one after the other, for about `seconds`."""
    end = time.perf_counter() + seconds

    async def work() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            size = 0
            async for part in client.read(pace):
                if not size:
                    cell.first.append(time.perf_counter() - began)
                size += len(part)
            assert size >= len(EVENT) * PACES[pace], "the stream was not whole"
            cell.chunks += PACES[pace]

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(parallel)))
    cell.seconds += time.perf_counter() - began
    cell.cpu += time.process_time() - cpu


async def run(port: int, total: float, rounds: int) -> dict[tuple[int, int, str], Cell]:
    made = clients(port)
    names = list(made)
    for name in names:
        await measure(made[name], 0, 4, 0.1, Cell())  # what is imported or cached once
    cells = {(p, n, name): Cell() for p in PACES for n in PARALLEL for name in names}
    each = total / rounds / len(cells)
    for turn in range(rounds):
        for pace in PACES:
            for parallel in PARALLEL:
                for place in range(len(names)):
                    name = names[(place + turn) % len(names)]
                    await measure(made[name], pace, parallel, each, cells[pace, parallel, name])
    for client in made.values():
        await client.close()
    return cells


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def added(cell: Cell, bare: Cell, share: float) -> float:
    """Milliseconds to the first byte, beyond those of a bare connection; its own for that one."""
    base = 0 if cell is bare else percentile(bare.first, share)
    return 1000 * (percentile(cell.first, share) - base)


def table(cells: dict[tuple[int, int, str], Cell]) -> str:
    """A Markdown table; times are added to those of a bare connection."""
    lines = [
        "| events | in parallel | client | first byte p50, ms | p95, ms | CPU s per 1,000 events "
        "| throughput to a bare connection | streams |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (pace, parallel, name), cell in cells.items():
        bare = cells[pace, parallel, BARE]
        sign = "" if cell is bare else "+"
        rate = (cell.chunks / cell.seconds) / (bare.chunks / bare.seconds)
        values: list[Any] = [
            f"every {pace} ms" if pace else "at once",
            parallel,
            name,
            f"{added(cell, bare, 0.5):{sign}.2f}",
            f"{added(cell, bare, 0.95):{sign}.2f}",
            f"{1000 * cell.cpu / cell.chunks:.3f}",
            f"{rate:.2f}",
            len(cell.first),
        ]
        lines.append(f"| {' | '.join(map(str, values))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100, help="of measuring, in all")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve())
        return
    command = [sys.executable, "-m", "benchmarks.http_clients", "--serve"]
    load = [os.getloadavg()[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            cells = uvloop.run(run(port, arguments.seconds, arguments.rounds))
        finally:
            server.kill()
    load.append(os.getloadavg()[0])
    print(table(cells))
    cpus, python = os.cpu_count(), sys.version.split()[0]
    print(f"\n{cpus} CPUs, load average {statistics.mean(load):.1f}, Python {python}")


if __name__ == "__main__":
    main()
