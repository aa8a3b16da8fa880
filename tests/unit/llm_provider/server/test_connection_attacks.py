"""Floods against a server in a process of its own, whose memory is measured."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

_SERVER = """
import socket, sys, uvicorn
from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.connection_limits import limited_protocol
from llm_provider.server.limits import Limits

async def app(scope, receive, send):
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})

guard = ConnectionGuard(Limits(header_seconds=2, first_byte_seconds=2))
config = uvicorn.Config(
    app, http=limited_protocol(guard), lifespan="off", log_config=None, loop="uvloop"
)
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(config).run([listener])
"""


@asynccontextmanager
async def process() -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """A server of its own, with uvloop: its port, and what gives its memory in bytes."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert started.stdout is not None
    port = int(await asyncio.wait_for(started.stdout.readline(), 20))

    def memory() -> int:
        status = Path(f"/proc/{started.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024

    try:
        yield port, memory
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(started.wait(), 5)
        except TimeoutError:
            started.kill()
            await started.wait()


async def ok(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"


@pytest.mark.parametrize(
    "flood",
    [
        b"x: " + b"y" * 65533,
        b"".join(b"x%d: yyyyyyyy\r\n" % number for number in range(3000)),
        b"y" * 65536,
        b"\r\n" * 32768,
    ],
    ids=["one line", "small headers", "no end", "blank lines"],
)
async def test_a_flood_of_headers_takes_no_memory(flood: bytes) -> None:
    """16 connections with up to 4 MiB of header each, against a server in a process of its own."""
    async with process() as (port, memory):
        assert await ok(port)
        before = memory()

        async def attack() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.1\r\n" if flood[:1] != b"\r" else b"")
                for _ in range(64):
                    writer.write(flood)
                    await writer.drain()
                return await asyncio.wait_for(reader.read(), 10)
            except OSError:
                return b""
            finally:
                writer.close()

        answers = await asyncio.gather(*(attack() for _ in range(16)))
        assert sum(answer.startswith(b"HTTP/1.1 431 ") for answer in answers) >= 14
        assert memory() - before < 12 * 1024 * 1024
        assert await ok(port)


async def test_many_silent_and_slow_clients_end_by_themselves() -> None:
    async with process() as (port, memory):
        assert await ok(port)
        before = memory()
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        for _, writer in connections[::2]:
            writer.write(b"GET / HTTP/1.1\r\nx: ")
        started = time.monotonic()
        assert await ok(port)
        answers = await asyncio.gather(
            *(asyncio.wait_for(reader.read(), 10) for reader, _ in connections)
        )
        assert 1.5 < time.monotonic() - started < 6
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[::2])
        assert answers[1::2] == [b""] * 30
        assert memory() - before < 8 * 1024 * 1024
        for _, writer in connections:
            writer.close()
