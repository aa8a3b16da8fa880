"""Attacks with a key, on a chat API that is a process: its memory, and what others notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from tests.unit.llm_provider.fake import KEY, Exchange, FakeEngine, completion
from tests.unit.llm_provider.server.processes import Served, served

from .attacks import MIB, large

OTHER = {"Authorization": "Bearer key-two-of-the-tests"}
MANY = {
    # On a slow machine too.
    "CHAT_API_BODY_SECONDS": "600",
    "CHAT_API_HEADER_SECONDS": "600",
    "CHAT_API_FIRST_BYTE_SECONDS": "600",
    "CHAT_API_KEEP_ALIVE_SECONDS": "600",
    "LLM_HOLD_SECONDS": "600",
    "CHAT_API_MAX_CONNECTIONS": "1000",
    "CHAT_API_MAX_CONNECTIONS_PER_ADDRESS": "1000",
}
"""What is limited elsewhere is not here."""
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


def rss(pid: int, kind: str = "VmHWM") -> float:
    """The most memory that a process ever had (VmHWM), or what it has now (VmRSS), in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {kind} of {pid}")


@asynccontextmanager
async def attacked(
    engine: FakeEngine, keys: Path, parallel: int = 1
) -> AsyncIterator[tuple[Served, int]]:
    """A chat API whose log is read, so that it does not wait for that; and its process id."""
    async with served(engine, keys, None, **MANY, PARALLEL=str(parallel)) as api:
        assert api.process.stdout is not None
        log = asyncio.create_task(api.process.stdout.read())
        try:
            yield api, api.process.pid
        finally:
            log.cancel()
            await asyncio.gather(log, return_exceptions=True)


async def slow_engine(exchange: Exchange) -> None:
    await asyncio.sleep(0.005)
    await exchange.answer(completion())


@pytest.mark.parametrize("part", [b"[],", b'"\\u00e4",'])
async def test_64_large_bodies_take_no_more_memory_than_is_meant_for_bodies(
    engine: FakeEngine, keys: Path, part: bytes
) -> None:
    """And all of them are answered, and so is a request of another key beside them."""

    async def forgetful(exchange: Exchange) -> None:
        engine.requests.clear()  # decoded, such a body takes 100 MiB
        await slow_engine(exchange)

    engine.on(CHAT, forgetful)
    body = large(part)
    async with attacked(engine, keys, parallel=2) as (api, pid):
        before = rss(pid, "VmRSS")

        async def attack() -> int:
            async with httpx.AsyncClient(base_url=api.client.base_url, timeout=600) as client:
                headers = {"Authorization": f"Bearer {KEY}"}
                return (await client.post(CHAT, content=body, headers=headers)).status_code

        tasks = [asyncio.create_task(attack()) for _ in range(64)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        started = time.monotonic()
        beside = await api.client.post(CHAT, json=BODY, headers=OTHER)
        waited = time.monotonic() - started
        statuses = Counter(await asyncio.gather(*tasks))
        most = rss(pid)
        print(f"{before:.0f} MiB before, {most:.0f} MiB at most; the other waited {waited:.2f} s")
        assert beside.status_code == 200
        assert statuses == {200: 64}
        assert most < 150


async def test_slow_bodies_keep_nobody_else_out(engine: FakeEngine, keys: Path) -> None:
    """65 requests that send nothing have all the places of their key, and all its memory."""
    async with attacked(engine, keys) as (api, pid):
        port = api.client.base_url.port
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Length: {4 * MIB}\r\n\r\n"
        ).encode()
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(65)]
        for _, writer in connections:
            writer.write(head + b"{")
        for _ in range(500):
            text = (await api.client.get("/metrics", headers=OTHER)).text
            if "edge_llm_requests_arriving 65.0" in text:
                break
            await asyncio.sleep(0.02)
        assert "edge_llm_requests_arriving 65.0" in text
        for _ in range(5):
            answer = await api.client.post(CHAT, json=BODY, headers=OTHER)
            assert answer.status_code == 200
        for _, writer in connections:
            writer.close()
        assert rss(pid) < 150


async def test_500_requests_of_one_key_beside_one_of_another(
    engine: FakeEngine, keys: Path
) -> None:
    """None fails; who finds no place comes again; the other has its turn."""
    other, order = 500, list[int]()
    refused: asyncio.Queue[int] = asyncio.Queue()
    goes_on, freed = asyncio.Event(), asyncio.Semaphore(0)

    async def note(exchange: Exchange) -> None:
        order.append(exchange.body["seed"])
        await goes_on.wait()
        await exchange.answer(completion())

    async def refusals(count: int) -> None:
        async with asyncio.timeout(600):
            for _ in range(count):
                await refused.get()

    engine.on(CHAT, note)
    async with attacked(engine, keys) as (api, _):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=api.client.base_url, timeout=600, limits=limits
        ) as client:

            async def ask(number: int) -> int:
                headers = {"Authorization": f"Bearer {KEY}"}
                while True:
                    answer = await client.post(CHAT, json=BODY | {"seed": number}, headers=headers)
                    if answer.status_code != 429:
                        freed.release()
                        return answer.status_code
                    assert json.loads(answer.content)["error"]["code"] == "queue_full"
                    assert int(answer.headers["Retry-After"]) > 0
                    refused.put_nowait(number)
                    await freed.acquire()

            tasks = [asyncio.create_task(ask(number)) for number in range(500)]
            await refusals(435)  # its key has all the places, one of them at the engine
            body = BODY | {"seed": other}
            beside = asyncio.create_task(client.post(CHAT, json=body, headers=OTHER))
            await refusals(1)  # the other has taken one
            goes_on.set()
            assert (await beside).status_code == 200
            # Behind the one that ran, and at most one more of the other key.
            assert order.index(other) <= 2
            assert Counter(await asyncio.gather(*tasks)) == {200: 500}
            assert sorted(order) == [*range(500), other]
