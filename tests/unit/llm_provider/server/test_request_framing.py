"""Where a request ends: nothing of one is read as another one, and no body is lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ..fake import until
from .serving import GET, error_of, serving

POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
# As Java's HttpClient sends it with every request.
OFFER = (
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"
LENGTH = b"content-length: %d\r\n\r\n" % len(HIDDEN)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 4\r\ncontent-length: 5\r\n",
        b"content-length: 4, 5\r\n",
        b"content-length: +4\r\n",
        b"content-length : 4\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"x: y\r\n content-length: 4\r\n",
        b"x: y\0\r\n",
    ],
)
async def test_a_length_that_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    async with serving() as served:
        error = error_of(await served.sends(POST + head + b"\r\n" + HIDDEN), 400)
        assert error["message"] == "Invalid HTTP request received."
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_http")
        assert served.app.scopes == []


@pytest.mark.parametrize(
    "body",
    [b"-3\r\nabc\r\n0\r\n\r\n", b"fffffffffffffffff\r\nabc", b"3\nabc\n0\n\n", b"3\r\nabcd\r\n"],
)
async def test_a_broken_chunk_ends_the_connection(body: bytes) -> None:
    async with serving() as served:
        assert await served.sends(POST + CHUNKED + body + HIDDEN) == b""
        assert served.app.scopes == []
        assert await served.is_well()


@pytest.mark.parametrize("offer", [b"", OFFER])
@pytest.mark.parametrize(
    "rest", [LENGTH + HIDDEN, CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)]
)
@pytest.mark.parametrize("pieces", [False, True])
async def test_a_body_is_no_request(offer: bytes, rest: bytes, pieces: bool) -> None:
    """With an offer of another protocol too, which is ignored; and the next request is answered."""
    async with serving() as served:
        client = await served.connect()
        head, end, body = (POST + offer + rest).partition(b"\r\n\r\n")
        if pieces:
            client.writer.write(head + end)
            await until(lambda: served.guard.over_network()[0].rest is None, "the header is read")
            answer = await client.asks(body)
        else:
            answer = await client.asks(head + end + body)
        assert answer.endswith(b"\r\n\r\n%d" % len(HIDDEN))
        assert (await client.asks(GET)).endswith(b"\r\n\r\n0")
        assert [scope["path"] for scope in served.app.scopes] == ["/", "/"]
        assert served.guard.refused == 0


async def test_offers_of_several_requests_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    get = GET.replace(b"host: x\r\n", OFFER)
    async with serving() as served:
        client = await served.connect()
        client.writer.write((get + POST + OFFER + LENGTH + HIDDEN) * 2 + GET)
        async with asyncio.timeout(5):
            lengths = [int((await client.asks(b"")).rpartition(b"\r\n\r\n")[2]) for _ in range(5)]
        assert lengths == [0, len(HIDDEN), 0, len(HIDDEN), 0]
        assert {scope["path"] for scope in served.app.scopes} == {"/"}
    assert caplog.messages == []


async def test_an_offer_hides_no_unknown_encoding() -> None:
    async with serving() as served:
        answer = await served.sends(POST + OFFER + b"transfer-encoding: gzip\r\n\r\n" + HIDDEN)
        assert not answer.startswith(b"HTTP/1.1 200")
        assert served.app.scopes == []


async def test_invalid_requests_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        for _ in range(5):
            error_of(await served.sends(b"this is no HTTP\r\n\r\n"), 400)
        assert served.guard.refused == 5
    assert caplog.messages == ["connections are refused"]
