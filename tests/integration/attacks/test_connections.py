"""Floods against the chat API as a process: memory, answers, and what others notice.

With the default limits, where nothing else is said; one process for each kind of port.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.server.limits import Limits
from tests.unit.llm_provider.fake import AUTH, FakeEngine, completion, error_of
from tests.unit.llm_provider.server.certificates import Files, Pair, trusting
from tests.unit.llm_provider.server.processes import BODY, MIB, Served, peak_memory, served

from .attacks import HEAD, Attack, flood, rest

LIMIT = 150 * MIB
"""What attacks may add to the process."""
PAIR = Pair.made()


@asynccontextmanager
async def attacking(api: Served) -> AsyncIterator[Attack]:
    """An attack, which leaves the chat API as well as it was, and little larger."""
    attack = Attack(api.port)
    before = peak_memory(api.process.pid)
    try:
        yield attack
        assert (await api.client.post(CHAT, json=BODY)).json() == completion()
        assert peak_memory(api.process.pid) - before < LIMIT
    finally:
        attack.close()


async def connections(api: Served) -> int:
    """As the chat API counts them."""
    text = (await api.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("edge_llm_connections ")]
    return int(float(lines[0].split()[1]))


async def until_closed(api: Served) -> None:
    """Wait until the test's own connection is the only one."""
    for _ in range(300):
        if await connections(api) == 1:
            return
        await asyncio.sleep(0.05)
    pytest.fail("connections stay open that their client has closed")


async def test_headers_without_end(engine: FakeEngine, keys: Path) -> None:
    small = b"".join(b"x-%04d: %s\r\n" % (number, b"y" * 20) for number in range(2000))
    async with served(engine, keys) as api, attacking(api) as attack:
        before = peak_memory(api.process.pid)
        for head, piece, total in (
            (HEAD, small, 32 * MIB),
            (HEAD + b"x: ", b"y" * 65536, 64 * MIB),
            (HEAD, b"y" * 65536, 32 * MIB),
            (b"", b"\r\n" * 32768, 32 * MIB),
        ):
            answer, _ = await flood(attack.port, head, piece, total)
            assert answer.startswith(b"HTTP/1.1 431 "), (piece[:20], answer[:100])
        assert (await flood(attack.port, b"GET /", b"y" * 9000, 9000))[0].startswith(
            b"HTTP/1.1 414 "
        )
        assert peak_memory(api.process.pid) - before < 16 * MIB


async def test_many_slow_headers(engine: FakeEngine, keys: Path) -> None:
    """As many connections as are allowed, each just below the limit of a header."""
    almost = HEAD + b"x: " + b"y" * (Limits().max_header_bytes - 1000)
    async with served(engine, keys, CHAT_API_HEADER_SECONDS="60") as api, attacking(api) as attack:
        for number in range(5):
            await attack.open(128, almost, f"127.0.1.{number}")
        assert 400 < await connections(api) <= Limits().max_connections
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as other:
            assert (await other.get("/health", timeout=60)).status_code == 200
        attack.close()
        await until_closed(api)


async def test_slow_headers_are_answered_at_their_limit(engine: FakeEngine, keys: Path) -> None:
    async with served(engine, keys, CHAT_API_HEADER_SECONDS="2") as api, attacking(api) as attack:
        started = time.monotonic()
        slow = await attack.open(8, b"GET / HT")
        answers = await asyncio.gather(*(rest(reader) for reader, _ in slow))
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 408 "}
        assert time.monotonic() - started > 1.75


async def test_a_thousand_idle_connections(engine: FakeEngine, keys: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1000, soft - 200)
    assert count > Limits().max_connections
    async with served(engine, keys) as api, attacking(api) as attack:
        for number in range(10):
            await attack.open(count // 10, b"", f"127.0.1.{number}")
            assert (await api.client.get("/health")).status_code == 200
        assert 400 < await connections(api) <= Limits().max_connections
        async with httpx.AsyncClient() as other:
            url = f"http://127.0.0.1:{api.port}{CHAT}"
            assert (await other.post(url, json=BODY, headers=AUTH)).json() == completion()


async def test_one_address_takes_no_more_than_its_share(
    engine: FakeEngine, keys: Path, tmp_path: Path
) -> None:
    """Of requests that run or wait; those of others come in all the same, and the Unix socket."""
    goes_on = engine.paused()
    own = tmp_path / "own.sock"
    environ = {"CHAT_API_MAX_CONNECTIONS_PER_ADDRESS": "4", "CHAT_API_SOCKET": str(own)}
    limits = httpx.Limits(max_keepalive_connections=0)
    async with served(engine, keys, None, **environ) as api:
        await api.client.aclose()
        url = f"http://127.0.0.1:{api.port}"
        elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.9")
        local = httpx.AsyncHTTPTransport(uds=str(own))
        async with (
            httpx.AsyncClient(base_url=url, headers=AUTH, limits=limits) as greedy,
            httpx.AsyncClient(base_url=url, headers=AUTH, transport=elsewhere) as other,
            httpx.AsyncClient(base_url=url, headers=AUTH, transport=local) as operator,
        ):

            async def become(count: int) -> None:
                for _ in range(600):
                    ready = (await operator.get("/ready")).json()
                    if ready["in_flight"] + ready["queued"] == count:
                        return
                    await asyncio.sleep(0.02)
                pytest.fail(f"not {count} requests: {ready}")

            asked = [asyncio.create_task(greedy.post(CHAT, json=BODY)) for _ in range(4)]
            await become(4)
            refused = await greedy.get("/ready")
            assert refused.status_code == 503
            assert error_of(refused)["code"] == "too_many_connections"
            assert refused.headers["retry-after"] == "5"
            asked.append(asyncio.create_task(other.post(CHAT, json=BODY)))
            await become(5)
            goes_on.set()
            assert [(await each).json() for each in asked] == [completion()] * 5


async def test_handshakes_without_end(engine: FakeEngine, keys: Path, tmp_path: Path) -> None:
    """A port for HTTPS: as many connections as are allowed, each a handshake that stands still."""
    files = Files.at(tmp_path, PAIR)
    hello = b"\x16\x03\x01\x3f\x00\x01\x00\x3f\xf0\x03\x03" + b"y" * 16_000
    environ = {**files.environ, "CHAT_API_HEADER_SECONDS": "8"}
    async with served(engine, keys, trusting(PAIR), **environ) as api, attacking(api) as attack:
        for number in range(5):
            await attack.open(125, hello, f"127.0.1.{number}")
        assert (await api.client.get("/health")).status_code == 200, "another client meanwhile"
        assert 300 < await connections(api) <= Limits().max_connections
        reader, _ = attack.opened[-1]
        assert await rest(reader) == b""
        for head in (b"\x16\x03\x01\x40\x00\x01\x01\x00\x00", b"\x16\x03\x01"):
            _, sent = await flood(attack.port, head, b"y" * 65536, 64 * MIB)
            assert sent < 64 * MIB, "it was cut"
