"""The chat API's sockets: the socket holder's, and its own."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.standalone.healthcheck import main as healthcheck

from ...edge_host.socket_activation import listening as socket_of_systemd
from ...edge_host.socket_activation import start_program
from ..fake import AUTH, FakeEngine, completion, error_of, free_port, until
from .crowd import EngineFile
from .handing_over import HolderProcess, api_behind, end, following, start_holder
from .processes import BODY, served, start


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


async def test_its_own_socket(
    engine: FakeEngine,
    holder: HolderProcess,
    keys: Path,
    file: EngineFile,
    monkeypatch: Any,
    capsys: Any,
) -> None:
    """Without a socket holder too; it leads to this process, asks for keys, lasts for a drain."""
    goes_on = engine.paused()
    environ = following(file)
    async with api_behind(holder, keys, "a", **environ) as api, api.client() as client:
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
        async with httpx.AsyncClient(transport=transport, headers=AUTH, timeout=60) as client:
            assert (await client.get("http://api/ready")).json()["ready"]
        assert (await api.client.post(CHAT, json=BODY)).json() == completion()
        api.signal(signal.SIGTERM)
        await api.ended()
    assert not path.exists()


async def test_the_socket_holders_end_is_the_chat_apis(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    """At once: until it has let go, no new socket holder can have the ports."""
    engine.paused()
    environ = following(file)
    async with (
        api_behind(holder, keys, "a", **environ) as api,
        httpx.AsyncClient(base_url=holder.url, headers=AUTH, timeout=10) as client,
    ):
        request = asyncio.create_task(client.post(CHAT, json=BODY))
        await api.becomes(in_flight=1)
        holder.process.kill()
        await holder.process.communicate()
        out, err = await asyncio.wait_for(api.process.communicate(), 15)
        assert (api.process.returncode, err) == (1, b"")
        assert b"the socket holder is gone" in out
        assert error_of(await request)["code"] == "stopped"
        assert not api.path.exists()
    # Its socket is left behind, as by a power cut, and the ports are free.
    again = await start_holder(holder.path, *holder.ports)
    await until(lambda: holder_answers(holder.path), "the next socket holder")
    await end(again)


def holder_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


async def test_a_retired_process_needs_no_socket_holder(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    environ = following(file)
    async with api_behind(holder, keys, "a", **environ) as api:
        await api.becomes(ready=True)
        api.retire()
        await until(lambda: not api.path.exists(), "the end of its retirement")
        await end(holder.process)
        again = await start_holder(holder.path, *holder.ports)
        await until(holder.path.is_socket, "the next socket holder")
        assert api.process.returncode is None
        await api.ended()
        await end(again)


async def test_it_waits_for_the_socket_holder(
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
    words = ("llm_provider.server", f"--port={ports[0]}")
    process = await start(*words, **environ)
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(path))
        rude.listen()
        for _ in range(2):
            connection, _ = await asyncio.to_thread(rude.accept)
            connection.close()
    holder_process = await start_holder(path, *ports)
    await until(own.is_socket, "its own socket")
    log = [json.loads(line) for line in (await end(process)).splitlines()]
    (warning,) = [entry for entry in log if entry["logger"] == "llm_provider.listeners"]
    assert warning["message"] == f"waiting for the socket holder {path}: it hung up"
    await end(holder_process)

    process = await start(*words, **environ)
    assert process.stdout
    out = await asyncio.wait_for(process.stdout.readuntil(b"waiting for the socket holder"), 60)
    out += await end(process)  # while it waits, a stop is one
    assert b"Started" not in out


async def test_settings_that_cannot_work_behind_a_socket_holder(
    engine: FakeEngine, holder: HolderProcess, keys: Path, tmp_path: Path, file: EngineFile
) -> None:
    environ = {
        "CHAT_API_DOOR": str(holder.path),
        "CHAT_API_KEYS_FILE": str(keys),
        **following(file),
    }
    process = await start("llm_provider.server", "--port=1", **environ)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    ports = ", ".join(map(str, holder.ports))
    assert err.decode() == f"The socket holder has no port 1; it has: {ports}.\n"
    absent = tmp_path / "absent" / "own.sock"
    words = ("llm_provider.server", f"--port={holder.ports[0]}")
    process = await start(*words, CHAT_API_SOCKET=str(absent), **environ)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode().startswith(f"CHAT_API_SOCKET {absent} cannot be made: [Errno 2]")


async def test_the_engine_itself_through_the_socket_holder(
    engine: FakeEngine, holder: HolderProcess, keys: Path, file: EngineFile
) -> None:
    """Under uvloop, as it is on a host: whichever engine is there now, until a stop."""
    large = b"x" * 8_000_000
    engine.on("/large", lambda x: x.answer(large))
    url = f"http://127.0.0.1:{holder.ports[1]}"
    async with (
        FakeEngine().serving() as other,
        api_behind(holder, keys, "a", LLM_API_KEY="engine-key", **following(file)) as api,
        httpx.AsyncClient(
            base_url=url, timeout=10, headers={"Authorization": "Bearer engine-key"}
        ) as client,
    ):
        assert (await client.get("/large", headers=AUTH)).status_code == 401
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
        assert error_of(await cut)["code"] == "stopped"
        endless.set()


def listeners_at(pid: int) -> int:
    """How many listening TCP sockets a process has."""
    states = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            columns = line.split()
            states[f"socket:[{columns[9]}]"] = columns[3]
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(states.get(link) == "0A" for link in links)


def peers_of(pid: int) -> int:
    """How many chat APIs are connected to a program of systemd: each takes a descriptor."""
    # Three standard ones, two sockets, its own socket, and the selector.
    return len(list(Path(f"/proc/{pid}/fd").iterdir())) - 7


async def program_of_systemd(
    holder: HolderProcess, sockets: list[socket.socket]
) -> asyncio.subprocess.Process:
    """The program of edge-llm-sockets.service, in the place of a socket holder."""
    process = await start_program(holder.path, sockets)
    await until(lambda: holder_answers(holder.path), "the program of systemd")
    return process


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[tuple[HolderProcess, list[socket.socket]]]:
    """Sockets of systemd, and the program that hands them on."""
    sockets = [socket_of_systemd("::"), socket_of_systemd()]
    ports = sockets[0].getsockname()[1], sockets[1].getsockname()[1]
    process = await start_program(tmp_path / "door.sock", sockets)
    made = HolderProcess(tmp_path, process, ports)
    await until(lambda: holder_answers(made.path), "the program of systemd")
    yield made, sockets
    if made.process.returncode is None:
        await end(made.process)
    for each in sockets:
        each.close()


async def test_systemds_sockets_outlive_the_program_that_hands_them_on(
    engine: FakeEngine,
    kept: tuple[HolderProcess, list[socket.socket]],
    keys: Path,
    file: EngineFile,
) -> None:
    """An update of the program costs no request: neither one that runs, nor a new one."""
    holder, sockets = kept
    goes_on = engine.paused()
    async with (
        api_behind(holder, keys, "a", **following(file)) as api,
        httpx.AsyncClient(headers=AUTH, timeout=20) as client,
    ):
        url = f"http://[::1]:{holder.ports[0]}{CHAT}"
        request = asyncio.create_task(client.post(url, json=BODY))
        await api.becomes(in_flight=1)
        for _ in range(2):
            holder.process.kill()
            await holder.process.communicate()
            assert (await client.get(f"{holder.url}/health")).status_code == 200
            holder.process = await program_of_systemd(holder, sockets)
            await until(lambda: peers_of(holder.process.pid) == 1, "the chat API's connection")
        goes_on.set()
        assert (await request).json() == completion()
        await api.ended()
    lost = [each for each in api.log if "the socket holder is gone" in each["message"]]
    # One or two: the second may come while it still looks for the first one's successor.
    assert {each["level"] for each in lost} == {"warning"}


async def test_other_sockets_of_systemd_need_another_process(
    engine: FakeEngine,
    kept: tuple[HolderProcess, list[socket.socket]],
    keys: Path,
    file: EngineFile,
) -> None:
    """As after a change of llm_listen_address: what runs is answered, and then it ends."""
    holder, sockets = kept
    goes_on = engine.paused()
    async with (
        api_behind(holder, keys, "a", **following(file)) as api,
        httpx.AsyncClient(base_url=holder.url, headers=AUTH, timeout=20) as client,
    ):
        request = asyncio.create_task(client.post(CHAT, json=BODY))
        await api.becomes(in_flight=1)
        await end(holder.process)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", holder.ports[0]))
            other.listen()
            again = await program_of_systemd(holder, [other, sockets[1]])
            # It listens no more: the port is the other socket's alone.
            await until(lambda: listeners_at(api.process.pid) == 0, "its end of listening")
            goes_on.set()
            assert (await request).json() == completion()
            out, err = await asyncio.wait_for(api.process.communicate(), 20)
            assert (api.process.returncode, err) == (1, b"")
            assert b"this process ends" in out
            await end(again)
