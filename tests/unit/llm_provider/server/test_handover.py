"""One chat API takes over from another, and no client notices.

Everything here is a process of its own and a real socket; the engines alone are doubles.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT

from ..fake import AUTH, DONE, Exchange, FakeEngine, completion, error_of, event, free_port, until
from .crowd import EngineFile
from .handing_over import HolderProcess, api_behind, end, following, start_holder
from .processes import BODY


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[HolderProcess]:
    ports = free_port(), free_port()
    process = await start_holder(tmp_path / "door.sock", *ports)
    made = HolderProcess(tmp_path, process, ports)
    await until(made.path.exists, "the socket holder")
    yield made
    if process.returncode is None:
        await end(process)


@pytest.fixture
def file(tmp_path: Path, engine: FakeEngine) -> EngineFile:
    """LLM_ENGINE_FILE, which points to `engine`."""
    made = EngineFile(tmp_path / "engine.env")
    made.point(engine)
    return made


def slowly(seconds: float) -> Any:
    """An engine that says the prompt again, and takes its time."""

    async def handler(exchange: Exchange) -> None:
        said = exchange.body["messages"][0]["content"]
        if not exchange.body["stream"]:
            await asyncio.sleep(seconds)
            await exchange.answer(completion(said))
            return
        await exchange.begin_stream()
        for word in said.split():
            await asyncio.sleep(seconds / len(said.split()))
            await exchange.chunk(event(f"{word} "))
        await exchange.chunk(event(finish_reason="stop") + DONE)
        await exchange.chunk(b"")

    return handler


class Client:
    """Asks on and on, every answer being its question; by a kept connection, or by new ones."""

    def __init__(self, url: str, name: str, *, kept: bool, streamed: bool) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._url, self._name, self._kept, self._streamed = url, name, kept, streamed
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._leave.set()
        await asyncio.wait_for(self._task, 20)

    async def _run(self) -> None:
        generator = random.Random(self._name)  # noqa: S311
        limits = httpx.Limits(max_keepalive_connections=1 if self._kept else 0)
        async with httpx.AsyncClient(
            base_url=self._url, headers=AUTH, timeout=30, limits=limits
        ) as client:
            while not self._leave.is_set():
                words = f"{self._name} asks {self.done} and then some more"
                try:
                    said = await self._ask(client, words)
                except httpx.HTTPError as error:
                    said = repr(error)
                if said.strip() != words:
                    self.failures.append(f"{words!r}: {said!r}")
                self.done += 1
                await asyncio.sleep(generator.choice((0, 0.001, 0.01, 0.05)))

    async def _ask(self, client: httpx.AsyncClient, words: str) -> str:
        body = {"messages": [{"role": "user", "content": words}], "stream": self._streamed}
        if not self._streamed:
            answer = await client.post(CHAT, json=body)
            choices = answer.json().get("choices")
            return str(choices[0]["message"]["content"] if choices else answer.json())
        async with client.stream("POST", CHAT, json=body) as streamed:
            raw = await streamed.aread()
        if not raw.endswith(DONE):
            return raw.decode()
        events = [json.loads(line[6:]) for line in raw.split(b"\n\n")[:-2]]
        deltas = [each["choices"][0]["delta"] for each in events]
        return "".join(delta.get("content", "") for delta in deltas)


async def test_taking_over_loses_no_request(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    """As a swap does it, of the engine and of the chat API, with clients that never rest."""
    engine.on(CHAT, slowly(0.15))
    environ = {**following(file), "PARALLEL": "3", "LLM_HOLD_SECONDS": "20"}
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(FakeEngine().serving())
        other.on(CHAT, slowly(0.05))
        # They come before anyone is there to answer.
        clients = [
            Client(holder.url, f"client {number}", kept=bool(number % 4), streamed=number % 2 == 1)
            for number in range(8)
        ]
        await asyncio.sleep(0.3)
        assert not any(client.done for client in clients)
        first = await stack.enter_async_context(api_behind(holder, keys, "a", **environ))
        await until(lambda: all(client.done > 2 for client in clients), "answers of the first")

        second = await stack.enter_async_context(api_behind(holder, keys, "b", **environ))
        await second.becomes(ready=True)
        file.point(engine, "LLM_HOLD=1")
        await first.becomes(holding=True, in_flight=0)
        assert (await first.report())["held"] > 0
        first.retire()
        await until(lambda: not first.path.exists(), "the end of what the first had accepted")
        await second.becomes(holding=True, held=8)
        finished = len(engine.asked)
        # Nothing is left but the second's to answer; the first is still there.
        file.point(other)
        await until(lambda: len(other.asked) > 24, "answers of the second")
        assert first.process.returncode is None
        await first.ended()
        before = len(other.asked)
        await until(lambda: len(other.asked) > before + 24, "more answers of the second")
        await asyncio.gather(*(client.stop() for client in clients))
        assert [failure for client in clients for failure in client.failures] == []
        assert len(engine.asked) == finished
        assert sum(client.done for client in clients) == finished + len(other.asked)
        assert set(first.outcomes()) == {"complete"}
        await second.ended()
        assert set(second.outcomes()) == {"complete"}
        assert len(first.outcomes()) + len(second.outcomes()) == finished + len(other.asked)


async def test_idle_connections_are_good_for_a_request_that_is_on_its_way(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    """Closing them at once, as a stop does, would lose it."""
    data = json.dumps(BODY).encode()
    head = [f"POST {CHAT} HTTP/1.1", "Host: a", f"Authorization: {AUTH['Authorization']}"]
    request = "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data

    async def come() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", holder.ports[0])

    async def answered(reader: asyncio.StreamReader) -> str:
        found = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().lower()
        length = next(line for line in found.split("\r\n") if line.startswith("content-length"))
        await reader.readexactly(int(length.split()[1]))
        return found

    async with api_behind(holder, keys, "a", **following(file)) as api:
        await api.becomes(ready=True)
        (fresh, to_fresh), (used, to_used), (idle, to_idle) = [await come() for _ in range(3)]
        for reader, writer in ((used, to_used), (idle, to_idle)):
            writer.write(request)
            assert "connection: close" not in await answered(reader)
        api.retire()
        await asyncio.sleep(0.1)
        for reader, writer in ((fresh, to_fresh), (used, to_used)):
            writer.write(request)
            found = await answered(reader)
            assert found.startswith("http/1.1 200 ok")
            assert "connection: close" in found
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert api.path.exists()
        assert await asyncio.wait_for(idle.read(), 5) == b""
        await until(lambda: not api.path.exists(), "the end of its retirement")
        for writer in (to_fresh, to_used, to_idle):
            writer.close()
        # It takes nobody new, and the socket holder's sockets are as they were.
        reader, writer = await come()
        writer.write(request)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 0.3)
        assert api.process.returncode is None
        async with api_behind(holder, keys, "b", **following(file)) as successor:
            assert (await answered(reader)).startswith("http/1.1 200 ok")
            writer.close()
            await successor.ended(signal.SIGINT)
        await api.ended(signal.SIGINT)
    assert api.outcomes() == ["complete"] * 4


async def test_retiring_stays_with_the_engine_and_finishes_in_order(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    """What the file says afterwards is for others; held requests are held no more."""
    file.point(engine, "LLM_HOLD=1")
    goes_on = engine.paused()
    async with (
        FakeEngine().serving() as other,
        api_behind(holder, keys, "a", **following(file)) as api,
        httpx.AsyncClient(base_url=holder.url, headers=AUTH, timeout=10) as client,
    ):
        await api.becomes(holding=True)
        requests = []
        for number in range(3):
            body = {"messages": [{"role": "user", "content": str(number)}]}
            requests.append(asyncio.create_task(client.post(CHAT, json=body)))
            await api.becomes(held=number + 1)
        api.retire()
        await api.becomes(holding=False, in_flight=1, queued=2)
        with pytest.raises(httpx.ReadTimeout):  # who comes now waits, for another
            await client.get("/health", timeout=httpx.Timeout(20, read=0.3))
        file.point(other, "LLM_HOLD=1")
        await asyncio.sleep(0.2)
        await api.becomes(holding=False, in_flight=1, queued=2)
        api.retire()  # once more is nothing
        goes_on.set()
        answers = await asyncio.gather(*requests)
        assert [answer.json() for answer in answers] == [completion()] * 3
        assert [body["messages"][0]["content"] for body in engine.asked] == ["0", "1", "2"]
        assert other.requests == []
        await until(lambda: not api.path.exists(), "the end of its retirement")
        await asyncio.sleep(0.3)
        assert api.process.returncode is None
        await api.ended()


async def test_a_stop_bounds_a_retirement(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    engine.paused()
    environ = {**following(file), "LLM_DRAIN_SECONDS": "1"}
    async with (
        api_behind(holder, keys, "a", **environ) as api,
        httpx.AsyncClient(base_url=holder.url, headers=AUTH, timeout=10) as client,
    ):
        runs = asyncio.create_task(client.post(CHAT, json=BODY))
        await api.becomes(in_flight=1)
        waits = asyncio.create_task(client.post(CHAT, json=BODY))
        await api.becomes(queued=1)
        api.retire()
        await asyncio.sleep(0.5)
        assert not runs.done()
        assert not waits.done()
        api.process.send_signal(signal.SIGTERM)
        assert error_of(await waits)["code"] == "stopping"
        assert error_of(await runs)["code"] == "stopped"
        await api.ended(0)
