"""HTTP connections of a real uvicorn: headers, times, and how many."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from llm_provider.server import connection_limits
from llm_provider.server.connection_guard import Rest

from ..fake import until
from .serving import GET, Client, Served, error_of, serving


async def sends_until_closed(served: Served, client: Client, part: bytes) -> None:
    """Send `part` again and again until the server has closed the connection."""

    async def drip() -> None:
        while True:
            client.writer.write(part)
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    await until(lambda: served.connections == 0, "the end of the connection")
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)


async def test_requests_are_served_as_ever() -> None:
    async with serving() as served:
        base = f"http://127.0.0.1:{served.port}"
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            for _ in range(3):
                assert (await client.get("/", headers={"x-some": "y" * 3000})).text == "0"
            assert (await client.post("/", content=b"x" * 3_000_000)).text == "3000000"

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(50):
                    yield b"y" * 5000

            assert (await client.post("/", content=pieces())).text == "250000"
            assert (await client.get("/slow")).text == "part," * 10 + "end"
            assert len((await client.get("/large")).content) == 8_000_000
        assert served.connections <= 1
        assert served.guard.refused == 0


async def test_a_header_that_is_too_large_is_refused() -> None:
    async with serving() as served:
        for data in (
            b"GET / HTTP/1.1\r\nx: " + b"y" * 5000,
            b"GET / HTTP/1.1\r\n" + b"x" * 5000,
            b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: %s\r\n" % (n, b"y" * 400) for n in range(12)),
            b"\r\n" * 2500,
        ):
            error = error_of(await served.sends(data), 431)
            assert error["message"] == "The header of the request has more than 4000 bytes."
            assert (error["type"], error["code"]) == ("invalid_request_error", "header_too_large")
        assert served.app.scopes == []
        assert await served.is_well()
        assert served.guard.refused == 4


async def test_a_header_in_small_pieces_is_counted_as_one() -> None:
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(50):
            client.writer.write(b"y" * 100)
            await asyncio.sleep(0.002)
        assert error_of(await client.rest(), 431)["code"] == "header_too_large"


async def test_a_header_at_the_limit_is_served() -> None:
    async with serving() as served:
        for size, status in ((4000, b"200"), (4001, b"431")):
            head = b"GET / HTTP/1.1\r\nconnection: close\r\nx: %s\r\n\r\n"
            answer = await served.sends(head % (b"y" * (size - len(head) + 2)))
            assert answer.startswith(b"HTTP/1.1 " + status), size


async def test_each_request_of_a_connection_has_the_whole_limit() -> None:
    async with serving() as served:
        client = await served.connect()
        for size in (3000, 10, 3500, 3500):
            answer = await client.asks(b"GET / HTTP/1.1\r\nx: %s\r\n\r\n" % (b"y" * size))
            assert answer.startswith(b"HTTP/1.1 200")
        post = b"POST / HTTP/1.1\r\ncontent-length: 50000\r\nx: %s\r\n\r\n%s"
        for _ in range(3):
            answer = await client.asks(post % (b"y" * 3500, b"z" * 50000))
            assert answer.endswith(b"\r\n50000")
        client.writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 4500)
        assert error_of(await client.rest(), 431)["code"] == "header_too_large"


async def test_too_many_header_fields_are_refused() -> None:
    async with serving() as served:
        data = b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 21 + b"\r\n"
        error = error_of(await served.sends(data), 431)
        assert error["message"] == "The request has more than 20 header fields."
        assert error["code"] == "too_many_headers"
        client = await served.connect()
        assert (await client.asks(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 20 + b"\r\n")).endswith(b"0")


async def test_a_url_that_is_too_long_is_refused() -> None:
    async with serving() as served:
        error = error_of(await served.sends(b"GET /" + b"y" * 1200 + b" HTTP/1.1\r\n\r\n"), 414)
        assert error["message"] == "The URL has more than 1000 bytes."
        assert error["code"] == "url_too_long"


async def test_what_is_not_http_is_refused_in_the_same_format() -> None:
    async with serving() as served:
        for data in (b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            error = error_of(await served.sends(data), 400)
            assert error["message"] == "Invalid HTTP request received."
        assert await served.is_well()


async def test_a_refused_client_reads_why_although_it_goes_on_sending() -> None:
    """Closing at once would reset the connection, and the answer with it."""
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(64):
            client.writer.write(b"y" * 65536)
            await client.writer.drain()
        assert error_of(await client.rest(), 431)["code"] == "header_too_large"


@pytest.mark.parametrize("first", [b"", GET])
async def test_a_slow_header_is_refused(first: bytes) -> None:
    """The first one of a connection and a later one, although a byte comes again and again."""
    async with serving(header_seconds=0.4) as served:
        client = await served.connect()
        if first:
            await client.asks(first)
        started = time.monotonic()
        client.writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            while True:
                client.writer.write(b"x")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        error = error_of(await client.rest(), 408)
        assert error["message"] == "The header of the request did not end within 0.4 s."
        assert error["code"] == "header_timeout"
        assert time.monotonic() - started > 0.3
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_refusal_is_not_written_into_another_answer() -> None:
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        assert (await client.reader.readuntil(b"part,")).startswith(b"HTTP/1.1 200")
        client.writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 5000)
        assert b"HTTP" not in await client.rest()
        assert served.guard.refused == 1


async def test_an_upgrade_leaves_the_connection_where_it_is_counted() -> None:
    def websocket(**_: object) -> object:
        raise AssertionError("the connection was handed over")

    async with serving() as served:
        served.server.config.ws_protocol_class = websocket  # type: ignore[assignment]
        client = await served.connect()
        upgrade = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        assert (await client.asks(upgrade)).endswith(b"\r\n0")
        assert len(served.guard) == 1


async def test_a_refused_connection_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "LINGER_SECONDS", 0.3)
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 5000)
        await sends_until_closed(served, client, b"more")
        client.writer.close()


async def test_a_connection_that_never_sends_is_closed() -> None:
    async with serving(first_byte_seconds=0.6) as served:
        started = time.monotonic()
        client = await served.connect()
        assert await client.rest() == b""
        assert time.monotonic() - started > 0.5
        assert len(served.guard) == 0


@pytest.mark.parametrize("begin", [b"", GET])
async def test_blank_lines_keep_no_connection_open(begin: bytes) -> None:
    """Uvicorn stops its timer for an idle connection with any byte that comes."""
    async with serving(first_byte_seconds=0.6, keep_alive_seconds=0.8) as served:
        client = await served.connect()
        if begin:
            await client.asks(begin)
        await sends_until_closed(served, client, b"\r\n")
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed() -> None:
    async with serving(keep_alive_seconds=2) as served:
        client = await served.connect()
        for _ in range(5):
            await client.asks(GET)
            await asyncio.sleep(0.5)
        assert await client.rest() == b""


async def test_a_long_answer_has_no_limit() -> None:
    async with serving() as served:
        answer = await served.sends(b"GET /slow HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"part,\r\n3\r\nend\r\n0\r\n\r\n")


async def test_a_late_request_does_not_break_the_answer_before_it() -> None:
    async with serving(header_seconds=0.4) as served:
        answer = await served.sends(b"GET /slow HTTP/1.1\r\n\r\nGET / HT")
        assert answer.endswith(b"part,\r\n3\r\nend\r\n0\r\n\r\n")
        assert len(served.app.scopes) == 1


async def test_a_body_that_nobody_waits_for_keeps_no_connection_open() -> None:
    async with serving(keep_alive_seconds=0.8) as served:
        client = await served.connect()
        await client.asks(b"POST /early HTTP/1.1\r\ncontent-length: 1000000\r\n\r\nabc")
        await sends_until_closed(served, client, b"x")


async def test_the_rest_of_a_body_is_dropped_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "DRAIN_BYTES", 1_000_000)
    async with serving() as served:
        client = await served.connect()
        head = b"POST /early HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
        assert (await client.asks(head % 800_000 + b"x" * 800_000)).endswith(b"-1")
        assert (await client.asks(GET)).endswith(b"\r\n0"), "the connection serves the next one"
        client.writer.write(head % 4_000_000)
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe|lost"):
            for _ in range(64):
                client.writer.write(b"x" * 65536)
                await client.writer.drain()
                await asyncio.sleep(0.005)


async def test_trailers_are_no_headers() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with serving() as served:
        client = await served.connect()
        assert (await client.asks(chunked + b"authorization: Bearer x\r\n\r\n")).endswith(b"\r\n3")
        assert (await client.asks(GET)).endswith(b"\r\n0")
        assert [name for name, _ in served.app.scopes[0]["headers"]] == [
            b"host", b"transfer-encoding",
        ]  # fmt: skip


@pytest.mark.parametrize("flood", [b"x: y\r\n" * 2000, b"x: " + b"y" * 12000])
async def test_trailers_are_limited(flood: bytes) -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with serving() as served:
        assert not (await served.sends(chunked + flood)).startswith(b"HTTP/1.1 200")
        assert served.guard.refused == 1
        assert await served.is_well()


async def test_extensions_of_chunks_are_limited() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;"
    async with serving() as served:
        await served.sends(chunked + b"x" * 20000)
        assert served.guard.refused == 1


async def test_many_requests_at_once_are_limited() -> None:
    async with serving() as served:
        client = await served.connect()
        client.writer.write(GET * 5)
        await until(lambda: len(served.app.scopes) == 5, "an answer to each of a few")
        await served.sends(b"GET /slow HTTP/1.1\r\n\r\n" + GET * 5000)
        assert len(served.app.scopes) <= 7
        assert served.guard.refused == 1


async def test_connections_of_one_address_are_limited() -> None:
    async with serving(max_connections_per_address=3) as served:
        busy = [await served.connect() for _ in range(3)]
        for client in busy:
            client.writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        await until(lambda: len(served.app.scopes) == 3)
        error = error_of(await served.sends(GET), 503)
        assert error["message"] == (
            "The chat API has too many connections from one address. Try again later."
        )
        assert (error["type"], error["code"]) == ("server_error", "too_many_connections")
        assert all([(await client.reader.read(15)).startswith(b"HTTP/1.1 200") for client in busy])
        for client in busy:
            client.writer.close()
        await until(lambda: len(served.guard) == 0)
        assert await served.is_well()


async def test_idle_connections_keep_nobody_out() -> None:
    """Many idle connections: each new client is served, and none of them by luck."""
    async with serving(max_connections=20, max_connections_per_address=20) as served:
        idle = [await served.connect() for _ in range(60)]
        for _ in range(10):
            assert await served.is_well()
        assert len(served.guard) <= 20
        assert served.guard.refused == 0
        for client in idle:
            client.writer.close()


@pytest.mark.parametrize(
    "unfinished",
    [b"GET / HTTP/1.1\r\nx: ", b"POST /early HTTP/1.1\r\ncontent-length: 9000\r\n\r\nabc"],
    ids=["header", "body of an answered request"],
)
async def test_unfinished_requests_keep_nobody_out(unfinished: bytes) -> None:
    """Not even while their time goes on, as it does with a new connection for each that ends."""
    async with serving(max_connections=5, max_connections_per_address=5) as served:
        slow = [await served.connect() for _ in range(5)]
        for client in slow:
            client.writer.write(unfinished)
        begun = {Rest.IDLE, Rest.INCOMPLETE}
        await until(
            lambda: [each.rest in begun for each in served.guard.over_network()] == [True] * 5
        )
        for _ in range(3):
            assert await served.is_well()
        assert served.guard.refused == 0


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "LINGER_SECONDS", 0.2)
    async with serving(keep_alive_seconds=0.3) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
            await until(lambda: served.connections == 0)
            assert len(served.guard) == 0


async def test_a_client_that_still_reads_makes_no_room() -> None:
    async with serving(max_connections=1, max_connections_per_address=1) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0.3)
            assert error_of(await served.sends(GET), 503)["code"] == "too_many_connections"
            client.setblocking(False)
            size = 0
            while size < 8_000_000:
                size += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
            await until(lambda: [each.rest for each in served.guard.over_network()] == [Rest.IDLE])
            assert await served.is_well()


async def test_counts_are_right_after_much_coming_and_going() -> None:
    async with serving() as served:

        async def visit(number: int) -> None:
            client = await served.connect()
            client.writer.write((GET, b"GET", b"bad\r\n\r\n", b"x" * 5000, b"")[number % 5])
            await asyncio.sleep(0.01 * (number % 3))
            if number % 2:
                client.writer.transport.abort()
            else:
                client.writer.close()

        for _ in range(4):
            await asyncio.gather(*(visit(number) for number in range(30)))
        guard = served.guard
        await until(lambda: len(guard) == 0)
        assert (len(guard), guard._counted, len(guard._per_group), len(guard._lingering)) == (
            0, 0, 0, 0,
        )  # fmt: skip
