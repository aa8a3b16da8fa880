"""Clients of one chat API, and the engine file that changes its engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LLMProvider
from llm_provider.providers.routes import CHAT

from ..fake import AUTH, MODEL, FakeEngine, completion, serve_api

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def clients(
    provider: LLMProvider | None, keys: Path, **environ: str
) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with (
        serve_api(provider, keys, **environ) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60, limits=limits) as client,
    ):
        yield client


class Crowd:
    """Requests that come one after the other, each with its number as the seed."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    async def come(self, count: int, **fields: Any) -> None:
        """Have so many more come, every other one streamed; return once all are in line."""
        for _ in range(count):
            number = len(self.tasks)
            body = BODY | {"seed": number, "stream": number % 2 == 1} | fields
            self.tasks.append(asyncio.create_task(self._client.post(CHAT, json=body)))
            # Over one connection each they might overtake one another before they are in line.
            await self._in_line()

    async def _in_line(self) -> None:
        for _ in range(500):
            there = await numbers(self._client)
            if sum(there) >= len([task for task in self.tasks if not task.done()]):
                return
            await asyncio.sleep(0.005)
        pytest.fail(f"in flight, queued, held: {there}; not all who came are in line")

    async def answers(self) -> list[httpx.Response]:
        return list(await asyncio.gather(*self.tasks))


def seeds(engine: FakeEngine) -> list[int]:
    return [body["seed"] for body in engine.asked]


async def numbers(client: httpx.AsyncClient) -> tuple[int, int, int]:
    """Requests in flight, queued, held."""
    report = (await client.get("/ready")).json()
    return report["in_flight"], report["queued"], report["held"]


async def numbered(client: httpx.AsyncClient, wanted: tuple[int, int, int]) -> None:
    """Wait until it is so."""
    for _ in range(500):
        if await numbers(client) == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{wanted} in flight, queued, held did not come about: {await numbers(client)}")


async def reported(client: httpx.AsyncClient, name: str, wanted: object) -> None:
    """Wait until /ready reports it so."""
    for _ in range(500):
        if (await client.get("/ready")).json()[name] == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{name} did not become {wanted}")


def assert_all_answered(answers: list[httpx.Response]) -> None:
    for number, answer in enumerate(answers):
        assert answer.status_code == 200
        assert (
            (answer.json() == completion()) if number % 2 == 0 else (answer.content[:5] == b"data:")
        )


# Changed over, by LLM_ENGINE_FILE.


class EngineFile:
    """Replaced whole, as whoever changes engines does it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str) -> None:
        fresh = self.path.with_name("fresh")
        fresh.write_text(text)
        fresh.replace(self.path)

    def point(self, engine: FakeEngine, *more: str) -> None:
        lines = [f"LLM_PROVIDER={engine.kind}", f"LLM_BASE_URL={engine.url}", *more]
        self.write("\n".join(["# which engine", "", *lines, ""]))


@asynccontextmanager
async def repointable(
    file: EngineFile, keys: Path, **environ: str
) -> AsyncIterator[httpx.AsyncClient]:
    environ = {"PARALLEL": "1", "LLM_MODEL": MODEL, "LLM_ENGINE_FILE": str(file.path)} | environ
    async with clients(None, keys, **environ) as client:
        yield client
