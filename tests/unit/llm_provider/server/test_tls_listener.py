"""A port for HTTPS: handshakes have the limits of connections, and what is no TLS is told so."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_provider.server import connection_guard, connection_limits, tls_listener
from llm_provider.server.connection_guard import Rest
from llm_provider.server.tls import Certificate

from ..clock import Clock
from ..fake import until
from .certificates import Files, Pair, trusting
from .serving import GET, Client, Served, error_of, serving

PAIR = Pair.made()
HELLO = b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc\x03\x03"
"""The begin of a handshake: a record of 4 KiB with one message."""
LIMIT = 60.0
"""Seconds for each step of a connection: more than any test takes."""
PATIENT: dict[str, Any] = dict.fromkeys(
    ("header_seconds", "first_byte_seconds", "keep_alive_seconds"), LIMIT
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files.at(tmp_path, PAIR)


@asynccontextmanager
async def over_tls(files: Files, **limits: Any) -> AsyncIterator[Served]:
    certificate = Certificate(files.certificate, files.key)
    async with serving(None, certificate, trusting(PAIR), **PATIENT | limits) as served:
        yield served


async def until_rests(served: Served, state: Rest) -> None:
    """Wait until there is one connection, in that state."""
    await until(
        lambda: [each.rest for each in served.guard.over_network()] == [state],
        f"one connection that is {state.name}",
    )


async def plain(served: Served) -> Client:
    """A connection without TLS."""
    opened = await asyncio.open_connection("127.0.0.1", served.port)
    served.clients.append(Client(*opened))
    return served.clients[-1]


async def a_look(served: Served) -> None:
    """Wait until the guard has looked for connections whose time is over."""
    timer = served.guard._timer
    await until(lambda: served.guard._timer is not timer, "a look of the guard")


async def test_requests_over_tls(files: Files) -> None:
    async with over_tls(files) as served:
        client = await served.connect()
        body = b"x" * 300_000
        head = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
        assert (await client.asks(head % len(body) + body)).endswith(b"\r\n300000")
        assert len(await client.asks(b"GET /large HTTP/1.1\r\n\r\n")) > 8_000_000
        scope = served.app.scopes[0]
        assert scope["scheme"] == "https"
        assert scope["client"][0] == "127.0.0.1"
        assert len(served.guard) == served.connections == 1
        chosen = client.writer.get_extra_info("ssl_object")
        assert chosen.version() == "TLSv1.3"


async def test_limits_hold_with_tls(
    files: Files, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """There one side of a connection cannot be closed alone: it ends with the time to linger."""
    monkeypatch.setattr(connection_limits, "LINGER_SECONDS", 0.3)
    async with over_tls(files) as served:
        answer = await served.sends(b"GET / HTTP/1.1\r\nx: " + b"y" * 5000)
        assert error_of(answer, 431)["code"] == "header_too_large"
        await until(lambda: len(served.guard) == 0, "its end")
        client = await served.connect()
        await until_rests(served, Rest.SILENT)
        client.writer.write(b"GET / HTTP/1.1\r\n")
        await until_rests(served, Rest.INCOMPLETE)
        clock.put_forward(LIMIT)
        assert error_of(await client.rest(), 408)["code"] == "header_timeout"
        await until(lambda: len(served.guard) == 0, "its end")
        client = await served.connect()
        await until_rests(served, Rest.SILENT)
        clock.put_forward(LIMIT)
        assert await client.rest() == b""
        assert await served.is_well()


@pytest.mark.parametrize("begins", [b"", b"\x16", HELLO[:8], HELLO])
async def test_a_client_that_does_not_finish_its_handshake(
    files: Files, begins: bytes, clock: Clock
) -> None:
    async with over_tls(files) as served:
        client = await plain(served)
        client.writer.write(begins)
        await until_rests(served, Rest.INCOMPLETE if begins == HELLO else Rest.SILENT)
        assert served.connections == 0
        clock.put_forward(LIMIT / 2)
        await a_look(served)
        assert len(served.guard) == 1
        clock.put_forward(LIMIT / 2)
        assert await client.rest() == b""
        await until(lambda: len(served.guard) == 0, "the end of the connection")
        assert served.guard.refused == (1 if begins == HELLO else 0)
        assert await served.is_well()


async def test_a_handshake_byte_by_byte(files: Files, clock: Clock) -> None:
    """Its bytes do not lengthen its time."""
    async with over_tls(files) as served:
        client = await plain(served)
        client.writer.write(HELLO)
        await until_rests(served, Rest.INCOMPLETE)
        for _ in range(9):
            client.writer.write(b"\x01")
            clock.put_forward(LIMIT / 10)
            await a_look(served)
            assert len(served.guard) == 1
        clock.put_forward(LIMIT / 10)
        assert await client.rest() == b""
        assert served.guard.refused == 1


async def test_what_is_not_tls_is_told_so(files: Files) -> None:
    async with over_tls(files) as served:
        for data in (GET, b"POST /v1/chat/completions HTTP/1.1\r\n", b"\x00\x01" * 9, b"GET /\n"):
            client = await plain(served)
            client.writer.write(data)
            if len(data) < 9:  # it waits for more, unless there is no more
                client.writer.write_eof()
            error = error_of(await client.rest(), 400)
            assert error["message"] == (
                "This port answers HTTPS only. Use https:// in place of http:// in the address."
            )
            assert error["code"] == "https_only"
        assert served.app.scopes == []
        assert served.guard.refused == 4
        assert await served.is_well()


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x40\x00\x01\x00\x40\x01",
        b"\x16\x03\x01\x40\x00\x01\x01\x00\x00",
        b"\x16\x03\x01\x00\x02\x01\x00\x16\x03",
    ],
    ids=["16 KiB and one byte", "64 KiB", "length in two records"],
)
async def test_a_large_first_message(
    files: Files, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be held until it is complete."""
    async with over_tls(files, first_byte_seconds=9, header_seconds=9) as served:
        client = await plain(served)
        client.writer.write(head)
        assert await client.rest() == b""
        assert served.guard.refused == 1
        assert caplog.records[0].__dict__["reason"] == "TLS handshake: first message"
        assert await served.is_well()


async def test_handshakes_that_fail(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async with over_tls(files) as served:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(cadata=PAIR.certificate.decode())
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match=r"TLSv1_1 is deprecated"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await asyncio.open_connection("127.0.0.1", served.port, ssl=old)
        (record,) = [each for each in caplog.records if each.name == "llm_provider.connections"]
        assert record.__dict__["reason"] == "TLS handshake: UNSUPPORTED_PROTOCOL"
        assert record.__dict__["client"] == "127.0.0.1"
        client = await plain(served)
        client.writer.write(b"\x16" * 200_000)
        await client.rest()
        client = await plain(served)
        client.writer.write(HELLO)
        client.writer.transport.abort()
        (await plain(served)).writer.transport.abort()
        await until(lambda: len(served.guard) == 0, "the end of all of them")
        assert served.app.scopes == []
        assert await served.is_well()
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_the_newest_certificate_is_shown_to_new_connections(files: Files) -> None:
    certificate = Certificate(files.certificate, files.key)
    new = Pair.made()
    async with serving(None, certificate, trusting(PAIR), keep_alive_seconds=9) as served:
        client = await served.connect()
        await client.asks(GET)
        files.write(new)
        certificate.look()
        assert (await client.asks(GET)).endswith(b"\r\n0"), "it goes on"
        with pytest.raises(ssl.SSLCertVerificationError):
            await served.connect()
        served.ssl = trusting(new)
        assert await served.is_well()


async def test_too_many_connections_are_closed_before_their_handshake(files: Files) -> None:
    async with over_tls(files, max_connections_per_address=3) as served:
        busy = [await served.connect() for _ in range(3)]
        for client in busy:
            client.writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        await until(lambda: len(served.app.scopes) == 3)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await served.connect()
        assert served.guard.refused == 1
        for client in busy:
            assert (await client.reader.readuntil(b"end")).startswith(b"HTTP/1.1 200")
        assert await served.is_well()


async def test_silent_connections_make_room(files: Files) -> None:
    async with over_tls(
        files, max_connections=6, max_connections_per_address=6, first_byte_seconds=30
    ) as served:
        silent = [await plain(served) for _ in range(20)]
        assert await served.is_well()
        assert len(served.guard) <= 6
        assert served.guard.refused == 0
        assert served.guard.evicted >= 15
        for client in silent[:10]:
            assert await client.rest() == b""


async def test_counts_are_right_after_much_coming_and_going(files: Files) -> None:
    async with over_tls(files) as served:

        async def visit(number: int) -> None:
            if number % 3 == 0:
                client = await served.connect()
            else:
                client = await plain(served)
            client.writer.write((GET, HELLO, b"", b"\x16" * 900)[number % 4])
            await asyncio.sleep(0.01 * (number % 3))
            if number % 2:
                client.writer.transport.abort()
            else:
                client.writer.close()

        await asyncio.gather(*(visit(number) for number in range(40)))
        guard = served.guard
        await until(lambda: not guard._open and not guard._lingering, "the end of all of them")
        assert (guard._counted, len(guard._per_group)) == (0, 0)


async def test_without_file_descriptors_it_tries_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Exhausted(socket.socket):
        left = 2

        def accept(self) -> Any:
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(tls_listener, "RETRY_SECONDS", 0.05)
    created = socket.create_server(("127.0.0.1", 0))
    listener = Exhausted(fileno=created.detach())
    monkeypatch.setattr(socket, "create_server", lambda *_: listener)
    async with over_tls(files) as served:
        assert await served.is_well()
    messages = [each.message for each in caplog.records if each.name == "llm_provider.tls"]
    assert messages == ["no connection can be accepted: [Errno 24] Too many open files"] * 2


@pytest.mark.parametrize("tls", [False, True])
async def test_connections_from_outside_the_allowed_networks(
    files: Files, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """They end before a byte is read, with TLS or without: the client need not send any."""
    elsewhere = ipaddress.ip_address("198.51.100.7")
    monkeypatch.setattr(connection_guard, "parse_address", lambda _: elsewhere)
    allowed = {"allowed_networks": (ipaddress.ip_network("192.0.2.0/24"),)}
    certificate = Certificate(files.certificate, files.key) if tls else None
    async with serving(None, certificate, None, **PATIENT | allowed) as served:
        assert await (await plain(served)).rest() == b""
        hasty = await plain(served)
        hasty.writer.write(HELLO if tls else GET)
        assert await hasty.rest() == b""
        assert served.guard.not_allowed == 2
        assert len(served.guard) == 0
        assert served.app.scopes == []
    allowed["allowed_networks"] = (ipaddress.ip_network("198.51.100.0/24"),)
    async with serving(None, None, None, **PATIENT | allowed) as served:
        assert await served.is_well()
