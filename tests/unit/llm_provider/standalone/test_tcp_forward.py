"""The TCP forward to the engine: bytes both ways, each end passed on, nothing lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from llm_provider.standalone import tcp_forward
from llm_provider.standalone.tcp_forward import TCPForward

from ..fake import free_port, until

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LARGE = bytes(range(256)) * 40_000


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[int]:
    """Something behind a port that talks as told; the port."""
    talks: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(reader, writer)
        writer.close()

    def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(come, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


class Upstream:
    """The address of an engine, which may change."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def __call__(self) -> str:
        return self.url


@asynccontextmanager
async def forward(upstream: Upstream) -> AsyncIterator[tuple[TCPForward, int]]:
    made = TCPForward(upstream)
    listener = socket.create_server(("127.0.0.1", 0))
    await made.serve(listener)
    try:
        yield made, listener.getsockname()[1]
    finally:
        await made.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def echo_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Needs the other's end to be passed on before its own: half of the connection is closed."""
    writer.write(await reader.read())
    await writer.drain()


async def test_all_bytes_and_each_end_pass() -> None:
    async with (
        listening(echo_at_the_end) as engine,
        forward(Upstream(engine)) as (_, port),
        connected(port) as (reader, writer),
    ):
        writer.write(LARGE)
        await writer.drain()
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == LARGE


async def test_what_comes_is_passed_at_once() -> None:
    async def answer_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())

    async with (
        listening(answer_each) as engine,
        forward(Upstream(engine)) as (_, port),
        connected(port) as (reader, writer),
    ):
        for word in (b"one\n", b"two\n"):
            writer.write(word)
            assert await asyncio.wait_for(reader.readline(), 5) == word.upper()


async def test_no_more_is_taken_of_the_engine_than_its_reader_takes() -> None:
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _number in range(1000):
            writer.write(LARGE[:100_000])
            await writer.drain()
            sent += 1

    async with (
        listening(pour) as engine,
        forward(Upstream(engine)) as (_, port),
        connected(port) as (reader, _),
    ):
        before = -1
        while sent != before:  # until it stands still
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 500
        assert len(await asyncio.wait_for(reader.read(), 20)) == 100_000_000


async def test_it_leads_to_the_engine_that_is_there_when_one_comes() -> None:
    def named(name: bytes) -> Talk:
        async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(name)

        return tell

    async with listening(named(b"one")) as one, listening(named(b"two")) as two:
        upstream = Upstream(one)
        async with forward(upstream) as (_, port):
            for engine, name in ((one, b"one"), (two, b"two")):
                upstream.url = Upstream(engine).url
                async with connected(port) as (reader, _):
                    assert await asyncio.wait_for(reader.read(), 5) == name


async def test_an_engine_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    async with forward(Upstream(free_port())) as (_, port), connected(port) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    assert "the engine cannot be reached: " in caplog.text


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://engine.test", ("engine.test", 80)),
        ("https://engine.test", ("engine.test", 443)),
        ("https://engine.test:8443", ("engine.test", 8443)),
        ("http://[::1]:8080", ("::1", 8080)),
    ],
)
async def test_the_port_that_an_address_means(
    monkeypatch: pytest.MonkeyPatch, url: str, where: tuple[str, int]
) -> None:
    connect = asyncio.open_connection
    asked: list[tuple[str, int]] = []

    async def refuse(host: str, port: int, **_: object) -> None:
        asked.append((host, port))
        raise ConnectionRefusedError

    upstream = Upstream(0)
    upstream.url = url
    async with forward(upstream) as (_, port):
        monkeypatch.setattr(asyncio, "open_connection", refuse)
        reader, writer = await connect("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    assert asked == [where]


async def test_connections_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those beyond are closed at once, and the log has one line of it; an end makes room."""
    monkeypatch.setattr(tcp_forward, "MOST", 2)
    async with (
        listening(echo_at_the_end) as engine,
        forward(Upstream(engine)) as (made, port),
        connected(port) as (reader, writer),
    ):
        async with connected(port):
            await until(lambda: len(made._open) == 2)
            for _ in range(3):
                async with connected(port) as (refused, _writer):
                    assert await asyncio.wait_for(refused.read(), 10) == b""
            assert caplog.messages == ["connections to the engine are refused: 2 are open"]
        await until(lambda: len(made._open) == 1)
        async with connected(port):
            await until(lambda: len(made._open) == 2)
        writer.write(b"still open")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"still open"


@pytest.mark.parametrize("breaks", ["client", "engine"])
async def test_a_side_that_breaks_off(breaks: str) -> None:
    """The other learns of it, and nothing stays open."""
    came = asyncio.Event()
    ended = asyncio.Event()

    def reset(writer: asyncio.StreamWriter) -> None:
        linger = b"\1\0\0\0\0\0\0\0"  # on, for no time: it ends with a reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        came.set()
        if breaks == "engine":
            reset(writer)
        assert await reader.read() == b""
        ended.set()

    async with (
        listening(talk) as engine,
        forward(Upstream(engine)) as (made, port),
        connected(port) as (reader, writer),
    ):
        writer.write(b"x")
        await came.wait()
        if breaks == "client":
            reset(writer)
            await asyncio.wait_for(ended.wait(), 5)
        else:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        await until(lambda: not made._open, "the end of both sides")


async def test_shut_and_closed() -> None:
    async with (
        listening(echo_at_the_end) as engine,
        forward(Upstream(engine)) as (made, port),
        connected(port) as (reader, writer),
    ):
        await until(lambda: bool(made._open))
        made.shut()
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"still open")
        await asyncio.sleep(0.1)
        assert not reader.at_eof()
        await made.close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert not made._open
