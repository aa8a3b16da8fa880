"""One chat API takes over from another, and no client notices: the door, the processes, a signal.

Everything here is a process of its own and a real socket; the engines alone are doubles.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import door
from llm_provider.base import CHAT
from llm_provider.healthcheck import main as healthcheck

from .fake import (
    AUTH,
    DONE,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    error_of,
    event,
    free_port,
    until,
)
from .test_line import EngineFile
from .test_process import BODY, served, start

BARE = (sys.executable, "-I", "-S", door.__file__)
"""A Python that finds nothing but its own library: the package is not there."""


@dataclass
class Doorway:
    """A door as a process, and where it is."""

    folder: Path
    process: asyncio.subprocess.Process
    ports: tuple[int, int]

    @property
    def path(self) -> Path:
        return self.folder / "door.sock"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"


async def open_door(path: Path, *ports: int) -> asyncio.subprocess.Process:
    words = [*BARE, "--socket", str(path), *map(str, ports)]
    return await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> bytes:
    """Have a process end, cleanly (0: it was told already); what it wrote to standard output."""
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 15)
    assert (process.returncode, err) == (0, b"")
    return out


@pytest.fixture
async def doorway(tmp_path: Path) -> AsyncIterator[Doorway]:
    ports = free_port(), free_port()
    process = await open_door(tmp_path / "door.sock", *ports)
    made = Doorway(tmp_path, process, ports)
    await until(made.path.exists, "the door")
    yield made
    if process.returncode is None:
        await end(process)


# The door


async def greeted(path: Path) -> tuple[socket.socket, bytes, list[socket.socket]]:
    """A connection to the door, what it said, and the sockets that it gave."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)

    def connected() -> bool:
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:  # it is there, and does not listen yet
            return False
        return True

    await until(connected, "the door")

    def ask() -> tuple[bytes, list[int]]:
        said, files, *_ = socket.recv_fds(connection, 100, 9)
        return said, files

    said, files = await asyncio.to_thread(ask)
    return connection, said, [socket.socket(fileno=file) for file in files]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_door_hands_out_its_sockets(tmp_path: Path, number: int) -> None:
    ports = [free_port(), free_port()]
    path = tmp_path / "door.sock"
    path.write_text("left behind")
    process = await open_door(path, *ports)
    await until(path.is_socket, "the door")
    held = []
    for _ in range(2):  # as often as it is asked
        connection, said, given = await greeted(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert said == b"door\n"
        assert [each.getsockname() for each in given] == [("0.0.0.0", port) for port in ports]
        assert all(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for each in given)
        assert not any(os.get_blocking(each.fileno()) for each in given)
        for each in given:
            each.close()
        held.append(connection)
    held[0].close()
    held[1].settimeout(0.3)
    with pytest.raises(TimeoutError):
        held[1].recv(1)  # it stays open, whoever else leaves
    held[1].send(b"what is said to it does not count")
    with pytest.raises(TimeoutError):
        held[1].recv(1)
    assert await end(process, number) == b""
    assert held[1].recv(1) == b""
    held[1].close()
    assert not path.exists()


async def test_connections_wait_where_nobody_takes_them(doorway: Doorway) -> None:
    """They are not refused, and they are for whoever comes next."""
    with socket.create_connection(("127.0.0.1", doorway.ports[0]), timeout=5) as waiting:
        waiting.sendall(b"said early")
        for leaves in (True, False):
            connection, _, (listener, other) = await greeted(doorway.path)
            if not leaves:
                taken, _ = listener.accept()
                assert taken.recv(100) == b"said early"
                taken.close()
            for each in (connection, listener, other):
                each.close()


async def test_a_door_whose_port_is_taken(doorway: Doorway, tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    process = await open_door(path, free_port(), doorway.ports[0])
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == (
        f"The port {doorway.ports[0]} cannot be listened on: [Errno 98] Address already in use.\n"
    )
    assert not path.exists()


async def test_a_door_that_cannot_be_asked(tmp_path: Path) -> None:
    process = await open_door(tmp_path / "absent" / "door.sock", free_port())
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"The socket ")
    assert err.endswith(b"cannot be made: [Errno 2] No such file or directory.\n")


# The chat API behind the door


@dataclass
class Api:
    """A chat API as a process, and what it is asked through its own socket."""

    process: asyncio.subprocess.Process
    path: Path
    log: list[dict[str, Any]] = field(default_factory=list)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        return httpx.AsyncClient(
            base_url="http://api", transport=transport, headers=AUTH, timeout=20
        )

    async def report(self) -> dict[str, Any]:
        async with self.client() as client:
            found: dict[str, Any] = (await client.get("/ready")).json()
            return found

    async def becomes(self, **wanted: object) -> None:
        """Wait until /ready says so."""
        told: dict[str, Any] = {}
        for _ in range(300):
            assert self.process.returncode is None
            if self.path.exists():
                told = await self.report()
                if wanted.items() <= told.items():
                    return
            await asyncio.sleep(0.02)
        pytest.fail(f"it did not become {wanted}: {told}")

    def retire(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    async def ended(self, number: int = signal.SIGTERM) -> None:
        out = await end(self.process, number)
        self.log = [json.loads(line) for line in out.splitlines()]
        assert not [entry for entry in self.log if "exception" in entry]
        assert not self.path.exists()

    def outcomes(self) -> list[str]:
        return [entry["outcome"] for entry in self.log if entry.get("path") == CHAT]


@asynccontextmanager
async def api_behind(doorway: Doorway, keys: Path, name: str, **environ: str) -> AsyncIterator[Api]:
    path = doorway.folder / f"{name}.sock"
    path.write_text("left behind")
    process = await start(
        "llm_provider.api",
        f"--port={doorway.ports[0]}",
        f"--engine-port={doorway.ports[1]}",
        CHAT_API_DOOR=str(doorway.path),
        CHAT_API_SOCKET=str(path),
        CHAT_API_KEYS_FILE=str(keys),
        **environ,
    )
    await until(path.is_socket, "its own socket")
    try:
        yield Api(process, path)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def file(tmp_path: Path, engine: FakeEngine) -> EngineFile:
    """LLM_ENGINE_FILE, which points to `engine`."""
    made = EngineFile(tmp_path / "engine.env")
    made.point(engine)
    return made


def following(file: EngineFile) -> dict[str, str]:
    return {"LLM_ENGINE_FILE": str(file.path), "LLM_MODEL": MODEL}


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
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    """As a swap does it, of the engine and of the chat API, with clients that never rest."""
    engine.on(CHAT, slowly(0.15))
    environ = {**following(file), "PARALLEL": "3", "LLM_HOLD_SECONDS": "20"}
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(FakeEngine().serving())
        other.on(CHAT, slowly(0.05))
        # They come before anyone is there to answer.
        clients = [
            Client(doorway.url, f"client {number}", kept=bool(number % 4), streamed=number % 2 == 1)
            for number in range(8)
        ]
        await asyncio.sleep(0.3)
        assert not any(client.done for client in clients)
        first = await stack.enter_async_context(api_behind(doorway, keys, "a", **environ))
        await until(lambda: all(client.done > 2 for client in clients), "answers of the first")

        second = await stack.enter_async_context(api_behind(doorway, keys, "b", **environ))
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
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    """Closing them at once, as a stop does, would lose it."""
    data = json.dumps(BODY).encode()
    head = [f"POST {CHAT} HTTP/1.1", "Host: a", f"Authorization: {AUTH['Authorization']}"]
    request = "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data

    async def come() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", doorway.ports[0])

    async def answered(reader: asyncio.StreamReader) -> str:
        found = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().lower()
        length = next(line for line in found.split("\r\n") if line.startswith("content-length"))
        await reader.readexactly(int(length.split()[1]))
        return found

    async with api_behind(doorway, keys, "a", **following(file)) as api:
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
        # It takes nobody new, and the door's sockets are as they were.
        reader, writer = await come()
        writer.write(request)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 0.3)
        assert api.process.returncode is None
        async with api_behind(doorway, keys, "b", **following(file)) as successor:
            assert (await answered(reader)).startswith("http/1.1 200 ok")
            writer.close()
            await successor.ended(signal.SIGINT)
        await api.ended(signal.SIGINT)
    assert api.outcomes() == ["complete"] * 4


async def test_retiring_stays_with_the_engine_and_finishes_in_order(
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    """What the file says afterwards is for others; held requests are held no more."""
    file.point(engine, "LLM_HOLD=1")
    goes_on = engine.paused()
    async with (
        FakeEngine().serving() as other,
        api_behind(doorway, keys, "a", **following(file)) as api,
        httpx.AsyncClient(base_url=doorway.url, headers=AUTH, timeout=10) as client,
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
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    engine.paused()
    environ = {**following(file), "LLM_DRAIN_SECONDS": "1"}
    async with (
        api_behind(doorway, keys, "a", **environ) as api,
        httpx.AsyncClient(base_url=doorway.url, headers=AUTH, timeout=10) as client,
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


async def test_its_own_socket(
    engine: FakeEngine,
    doorway: Doorway,
    keys: Path,
    file: EngineFile,
    monkeypatch: Any,
    capsys: Any,
) -> None:
    """Without a door too; it leads to this process, asks for keys, and lasts as long as a drain."""
    goes_on = engine.paused()
    environ = following(file)
    async with api_behind(doorway, keys, "a", **environ) as api, api.client() as client:
        assert stat.S_IMODE(api.path.stat().st_mode) == 0o600
        await api.becomes(ready=True, in_flight=0)
        assert (await client.get("/health", headers={"Authorization": ""})).status_code == 200
        assert (await client.get("/ready", headers={"Authorization": ""})).status_code == 401
        monkeypatch.setenv("CHAT_API_SOCKET", str(api.path))
        assert await asyncio.to_thread(healthcheck, free_port()) == 0
        request = asyncio.create_task(client.post(CHAT, json=BODY))
        await api.becomes(in_flight=1)
        api.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.4)
        assert api.path.exists()
        goes_on.set()
        assert (await request).json() == completion()
        await api.ended(0)
        assert await asyncio.to_thread(healthcheck, free_port()) == 1
        assert f"The chat API at {api.path} does not answer: " in capsys.readouterr().out


async def test_its_own_socket_beside_a_port_of_its_own(
    engine: FakeEngine, keys: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.sock"
    async with served(engine, keys, CHAT_API_SOCKET=str(path)) as api:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, headers=AUTH) as client:
            assert (await client.get("http://api/ready")).json()["ready"]
        assert (await api.client.post(CHAT, json=BODY)).json() == completion()
        api.signal(signal.SIGTERM)
        await api.ended()
    assert not path.exists()


async def test_the_doors_end_is_the_chat_apis(
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    """At once: until it has let go, no new door can have the ports."""
    engine.paused()
    environ = following(file)
    async with (
        api_behind(doorway, keys, "a", **environ) as api,
        httpx.AsyncClient(base_url=doorway.url, headers=AUTH, timeout=10) as client,
    ):
        request = asyncio.create_task(client.post(CHAT, json=BODY))
        await api.becomes(in_flight=1)
        doorway.process.kill()
        await doorway.process.communicate()
        out, err = await asyncio.wait_for(api.process.communicate(), 3)
        assert (api.process.returncode, err) == (1, b"")
        assert b"the door is gone" in out
        assert error_of(await request)["code"] == "stopped"
        assert not api.path.exists()
    # Its socket is left behind, as by a power cut, and the ports are free.
    again = await open_door(doorway.path, *doorway.ports)
    await until(lambda: door_answers(doorway.path), "the next door")
    await end(again)


def door_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


async def test_a_retired_process_needs_no_door(
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    environ = following(file)
    async with api_behind(doorway, keys, "a", **environ) as api:
        await api.becomes(ready=True)
        api.retire()
        await until(lambda: not api.path.exists(), "the end of its retirement")
        await end(doorway.process)
        again = await open_door(doorway.path, *doorway.ports)
        await until(doorway.path.is_socket, "the next door")
        assert api.process.returncode is None
        await api.ended()
        await end(again)


async def test_it_waits_for_the_door(
    engine: FakeEngine, keys: Path, tmp_path: Path, file: EngineFile
) -> None:
    """Which may start after it; what it is not, is told once."""
    ports = free_port(), free_port()
    path, own = tmp_path / "door.sock", tmp_path / "own.sock"
    environ = {
        "CHAT_API_DOOR": str(path),
        "CHAT_API_SOCKET": str(own),
        "CHAT_API_KEYS_FILE": str(keys),
        **following(file),
    }
    words = ("llm_provider.api", f"--port={ports[0]}")
    process = await start(*words, **environ)
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(path))
        rude.listen()
        for _ in range(2):
            connection, _ = await asyncio.to_thread(rude.accept)
            connection.close()
    door_process = await open_door(path, *ports)
    await until(own.is_socket, "its own socket")
    log = [json.loads(line) for line in (await end(process)).splitlines()]
    (warning,) = [entry for entry in log if entry["logger"] == "llm_provider.door"]
    assert warning["message"] == f"waiting for the door {path}: it hung up"
    await end(door_process)

    process = await start(*words, **environ)
    assert process.stdout
    out = await asyncio.wait_for(process.stdout.readuntil(b"waiting for the door"), 60)
    out += await end(process)  # while it waits, a stop is one
    assert b"Started" not in out


async def test_settings_that_cannot_work_behind_a_door(
    engine: FakeEngine, doorway: Doorway, keys: Path, tmp_path: Path, file: EngineFile
) -> None:
    environ = {
        "CHAT_API_DOOR": str(doorway.path),
        "CHAT_API_KEYS_FILE": str(keys),
        **following(file),
    }
    process = await start("llm_provider.api", "--port=1", **environ)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    ports = ", ".join(map(str, doorway.ports))
    assert err.decode() == f"The door holds no port 1; it holds: {ports}.\n"
    absent = tmp_path / "absent" / "own.sock"
    words = ("llm_provider.api", f"--port={doorway.ports[0]}")
    process = await start(*words, CHAT_API_SOCKET=str(absent), **environ)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode().startswith(f"CHAT_API_SOCKET {absent} cannot be made: [Errno 2]")


async def test_the_engine_itself_through_the_door(
    engine: FakeEngine, doorway: Doorway, keys: Path, file: EngineFile
) -> None:
    """Under uvloop, as it is on a host: whichever engine is there now, until a stop."""
    large = b"x" * 8_000_000
    engine.on("/large", lambda x: x.answer(large))
    url = f"http://127.0.0.1:{doorway.ports[1]}"
    async with (
        FakeEngine().serving() as other,
        api_behind(doorway, keys, "a", **following(file)) as api,
        # The double serves one request a connection.
        httpx.AsyncClient(
            base_url=url, timeout=10, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client,
    ):
        assert (await client.get("/large")).content == large
        assert other.connections == 0
        file.point(other)
        await until(lambda: other.connections > 0, "the other engine's first question")
        other.on("/who", lambda x: x.answer({"who": "other"}))
        assert (await client.get("/who")).json() == {"who": "other"}
        endless = other.paused("/who")
        cut = asyncio.create_task(client.get("/who"))
        await until(lambda: other.paths().count("/who") == 2)
        await api.ended()
        with pytest.raises(httpx.RemoteProtocolError):
            await cut
        endless.set()
