"""The health probe of the chat API's container."""

from __future__ import annotations

import asyncio
import sys

import pytest

from llm_provider.standalone.healthcheck import main as healthcheck

from ..fake import ANSWER, FakeEngine, free_port
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
