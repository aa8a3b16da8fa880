"""Bodies over HTTP, as an application reads them within the limits of connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from llm_provider.server.body import (
    BodyRefusedError,
    declared_size,
    discard_body,
    read_body,
)
from llm_provider.server.body_budget import BodyBudget

from ..fake import until
from .serving import serving

MIB = 1024 * 1024


class Reader:
    """An ASGI application that reads a body of at most 1 MiB, and holds it for a moment."""

    def __init__(self, budget: BodyBudget, seconds: float) -> None:
        self.budget = budget
        self.seconds = seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with await read_body(
                receive,
                self.budget,
                key="alice",
                most=MIB,
                seconds=self.seconds,
                declared=declared_size(scope["headers"]),
            ) as body:
                await asyncio.sleep(0.1)
                status, text = 200, json.dumps({"size": len(body.data)})
        except BodyRefusedError as error:
            status, text = error.status, json.dumps({"error": str(error)})
            if (b"connection", b"close") in scope["headers"]:
                await discard_body(receive, most=16 * MIB, seconds=5)
        data = text.encode()
        headers = [(b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})


@asynccontextmanager
async def reading(seconds: float = 20) -> AsyncIterator[tuple[str, BodyBudget]]:
    """A server whose application waits this long for a body; its URL and its budget."""
    budget = BodyBudget(3 * MIB)
    async with serving(Reader(budget, seconds)) as served:
        yield f"http://127.0.0.1:{served.port}", budget
    assert budget.used == 0, "every request has given its bytes back"


@pytest.fixture
async def base() -> AsyncIterator[tuple[str, BodyBudget]]:
    async with reading() as served:
        yield served


async def pieces(count: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 65536
        await asyncio.sleep(pause)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_client_reads_why_its_large_body_is_refused(
    base: tuple[str, BodyBudget], connection: str, declared: bool
) -> None:
    """Also where the client sends all of it before it reads anything."""
    content = b"x" * (8 * MIB) if declared else pieces(128)
    async with httpx.AsyncClient(
        base_url=base[0], headers={"connection": connection}, timeout=60
    ) as client:
        answer = await client.post("/", content=content)
        assert answer.status_code == 413
        assert answer.json() == {
            "error": f"The body has {8 * MIB} bytes; at most {MIB} are accepted."
            if declared
            else f"The body has more than {MIB} bytes, and no more are accepted."
        }
        assert (await client.post("/", content=b"x" * MIB)).json() == {"size": MIB}


async def test_bodies_beyond_the_budget_wait(base: tuple[str, BodyBudget]) -> None:
    async with httpx.AsyncClient(base_url=base[0], timeout=60) as client:
        answers = await asyncio.gather(*(client.post("/", content=b"x" * MIB) for _ in range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6


async def test_bodies_that_wait_for_too_long_are_refused() -> None:
    async with (
        reading(seconds=0.5) as (url, budget),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        await budget.take(3 * MIB, "bob", 1)
        answer = await client.post("/", content=b"x" * MIB)
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("The bodies of other requests took the memory")
        budget.give_back(3 * MIB, "bob")


async def test_a_slow_body_is_refused() -> None:
    async with (
        reading(seconds=0.5) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        answer = await client.post("/", content=pieces(8, pause=0.1))
        assert answer.status_code == 408
        assert answer.json()["error"].startswith("The body did not arrive within 0.5 s: ")


async def test_clients_that_leave_give_their_bytes_back(base: tuple[str, BodyBudget]) -> None:
    url, budget = base
    host, port = url.removeprefix("http://").split(":")
    writers = []
    for _ in range(3):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc")
        writers.append(writer)
    await until(lambda: budget.used == 3_000_000)
    for writer in writers:
        writer.close()
    await until(lambda: budget.used == 0)
