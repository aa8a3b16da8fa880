"""HTTPS of the chat API as a process, under uvloop as on a host."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.standalone.healthcheck import main as healthcheck

from ..fake import AUTH, FakeEngine, completion, free_port, stream_of, until
from .certificates import Files, Pair, replace, trusting
from .crowd import EngineFile
from .handing_over import HolderProcess, api_behind, end, following, start_holder
from .processes import BODY, served, start


class Load:
    """Clients that ask on and on, each answer compared; two by kept connections, two by new."""

    def __init__(self, url: str, trust: ssl.SSLContext) -> None:
        self.answers = [0] * 4
        self.failures: list[str] = []
        self._leave = asyncio.Event()
        self._url, self._trust = url, trust
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(4)]

    async def _ask(self, number: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=number % 2)
        async with httpx.AsyncClient(
            base_url=self._url, headers=AUTH, verify=self._trust, limits=limits, timeout=60
        ) as client:
            body = BODY | {"stream": number > 1}
            wanted = stream_of() if number > 1 else None
            while not self._leave.is_set():
                try:
                    answer = await client.post(CHAT, json=body)
                    right = answer.content == wanted if wanted else answer.json() == completion()
                    problem = "" if right else repr(answer.content)
                except httpx.HTTPError as error:
                    problem = repr(error)
                if problem:
                    self.failures.append(f"client {number}: {problem}")
                self.answers[number] += 1
                await asyncio.sleep(0.01)

    async def goes_on(self) -> None:
        """Wait until each client has two more answers."""
        wanted = [count + 2 for count in self.answers]
        for _ in range(3000):
            if all(has >= each for has, each in zip(self.answers, wanted, strict=True)):
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"the clients have no more answers: {self.answers}, {self.failures}")

    async def end(self) -> None:
        self._leave.set()
        await asyncio.gather(*self._tasks)


async def shown(port: int) -> str:
    """The certificate of the port, as PEM."""
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=30)


async def test_a_new_certificate_fails_no_request(
    engine: FakeEngine, keys: Path, tmp_path: Path
) -> None:
    """While clients ask; a connection that was open before goes on after it."""
    pairs = [Pair.made(90 + number) for number in range(4)]
    files = Files.at(tmp_path, pairs[0])
    trust = trusting(*pairs)
    async with (
        served(engine, keys, trust, **files.environ) as api,
        httpx.AsyncClient(
            base_url=api.client.base_url,
            headers=AUTH,
            verify=trust,
            limits=httpx.Limits(keepalive_expiry=None),
            timeout=60,
        ) as old,
    ):
        assert (await old.get("/health")).status_code == 200
        load = Load(str(api.client.base_url), trust)
        for pair in pairs[1:]:
            await load.goes_on()
            replace(files.certificate, pair.certificate)
            if pair is pairs[2]:  # half of it, for a while
                await asyncio.sleep(1.5)
            replace(files.key, pair.key)
            for _ in range(200):
                if (await shown(api.port)).split() == pair.certificate.decode().split():
                    break
                await asyncio.sleep(0.1)
            else:
                pytest.fail("the new certificate is not shown")
        await load.goes_on()
        await load.end()
        assert load.failures == []
        (kept,) = connections_of(old)
        answer = await old.get("/metrics")
        assert connections_of(old) == [kept]
        ends = pairs[-1].ends.timestamp()
        lines = answer.text.splitlines()
        (line,) = [each for each in lines if each.startswith("edge_llm_certificate_")]
        assert line.split()[0] == "edge_llm_certificate_expiry_timestamp_seconds"
        assert float(line.split()[1]) == ends
        assert "edge_llm_connections_refused_total 0.0" in lines


def connections_of(client: httpx.AsyncClient) -> list[int]:
    """What identifies the connections that a client keeps."""
    transport: Any = client._transport
    return [id(each) for each in transport._pool.connections]


async def test_https_at_the_port_and_http_at_the_socket(
    engine: FakeEngine, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair.made()
    files, own = Files.at(tmp_path, pair), tmp_path / "own.sock"
    environ = {**files.environ, "CHAT_API_SOCKET": str(own)}
    async with served(engine, keys, trusting(pair), **environ) as api:
        transport = httpx.AsyncHTTPTransport(uds=str(own))
        async with httpx.AsyncClient(transport=transport, headers=AUTH, timeout=60) as local:
            assert (await local.get("http://api/ready")).json()["ready"]
        async with httpx.AsyncClient(headers=AUTH, timeout=60) as plain:
            answer = await plain.post(f"http://127.0.0.1:{api.port}{CHAT}", json=BODY)
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "message": "This port answers HTTPS only. Use https:// in place of http:// in the "
            "address.",
            "type": "invalid_request_error",
            "param": None,
            "code": "https_only",
        }
        for name, value in files.environ.items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(healthcheck, api.port, 30) == 0
        monkeypatch.delenv("CHAT_API_TLS_CERTIFICATE")
        assert await asyncio.to_thread(healthcheck, api.port, 30) == 1
        monkeypatch.setenv("CHAT_API_SOCKET", str(own))
        assert await asyncio.to_thread(healthcheck, api.port, 30) == 0
        api.client.headers["connection"] = "close"
        streamed = await api.client.post(CHAT, json=BODY | {"stream": True})
        assert streamed.content == stream_of()
        api.process.terminate()
        assert {entry["outcome"] for entry in await api.ended()} == {"complete"}


async def test_a_pair_that_does_not_fit_ends_the_start(keys: Path, tmp_path: Path) -> None:
    files = Files.at(tmp_path, Pair.made())
    replace(files.key, Pair.made().key)
    process = await start(
        "llm_provider.server",
        f"--port={free_port()}",
        CHAT_API_KEYS_FILE=str(keys),
        LLM_MODEL="m",
        **files.environ,
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode() == (
        f"The key {files.key} does not belong to the certificate {files.certificate}. Write both "
        "files of the same pair.\n"
    )


async def test_taking_over_fails_no_request(engine: FakeEngine, keys: Path, tmp_path: Path) -> None:
    """One chat API retires, another one takes over the port, and clients ask on and on."""
    pair = Pair.made()
    files, file = Files.at(tmp_path, pair), EngineFile(tmp_path / "engine.env")
    file.point(engine)
    ports = free_port(), free_port()
    process = await start_holder(tmp_path / "door.sock", *ports)
    holder = HolderProcess(tmp_path, process, ports)
    await until(holder.path.exists, "the socket holder")
    environ = {**following(file), **files.environ}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(api_behind(holder, keys, "a", **environ))
        await first.becomes(ready=True)
        load = Load(f"https://127.0.0.1:{ports[0]}", trusting(pair))
        await load.goes_on()
        second = await stack.enter_async_context(api_behind(holder, keys, "b", **environ))
        await second.becomes(ready=True)
        await load.goes_on()
        first.retire()
        for _ in range(3000):
            if not first.path.exists():
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it did not retire")
        await first.ended()
        await load.goes_on()
        await load.end()
        assert load.failures == []
        await second.ended()
        assert set(first.outcomes()) == set(second.outcomes()) == {"complete"}
    await end(process)
