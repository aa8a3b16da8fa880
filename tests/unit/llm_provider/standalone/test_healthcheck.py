"""The health probe of the chat API's container."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from llm_provider.standalone.healthcheck import main as healthcheck
from tests.certificates import NOW, authority, issue

from ..fake import ANSWER, FakeEngine, free_port
from ..scripted import Scripted, serving
from ..server.processes import SOURCE


async def test_healthcheck(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(healthcheck, engine.port) == 0
    assert capsys.readouterr().out == ""
    engine.on("/health", lambda x: x.answer({}, 503))
    assert await asyncio.to_thread(healthcheck, engine.port) == 1
    assert "answered 'HTTP/1.1 503 Service Unavailable'; 200 is needed." in capsys.readouterr().out
    engine.on("/health", lambda x: x.send(ANSWER.encode()))
    assert await asyncio.to_thread(healthcheck, engine.port) == 1
    engine.on("/health", lambda x: asyncio.sleep(5))
    assert await asyncio.to_thread(healthcheck, engine.port, 0.1) == 1
    assert await asyncio.to_thread(healthcheck, free_port()) == 1
    assert "does not answer" in capsys.readouterr().out


def test_the_port_may_have_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which certificate it has is for clients to judge: the chat API is alive."""
    expired = issue(authority(), ["DNS:pi-01"], NOW - timedelta(days=20), 10)
    (tmp_path / "pair").write_text(expired)
    with serving(Scripted(), tmp_path / "pair") as scripted:
        port = int(scripted.url.rpartition(":")[2])
        monkeypatch.setenv("CHAT_API_TLS_CERTIFICATE", str(tmp_path / "pair"))
        assert healthcheck(port) == 0
        assert capsys.readouterr().out == ""
        monkeypatch.delenv("CHAT_API_TLS_CERTIFICATE")
        assert healthcheck(port) == 1


async def test_the_socket_has_no_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a host, where the certificate is of no use to the probe."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    path = tmp_path / "api.sock"
    monkeypatch.setenv("CHAT_API_SOCKET", str(path))
    monkeypatch.setenv("CHAT_API_TLS_CERTIFICATE", str(tmp_path / "missing.pem"))
    async with await asyncio.start_unix_server(answer, path):
        assert await asyncio.to_thread(healthcheck) == 0
    assert capsys.readouterr().out == ""


async def test_the_health_probe_is_light() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, llm_provider.standalone.healthcheck; print(*sys.modules)",
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(SOURCE)},
    )
    out, _ = await process.communicate()
    loaded = set(out.decode().split())
    assert "llm_provider.standalone.healthcheck" in loaded
    assert not loaded & {"httptools", "fastapi", "asyncio", "ssl", "llm_provider.base"}
