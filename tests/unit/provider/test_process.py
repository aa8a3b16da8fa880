"""What runs as a process of its own: the chat API's server, and its health probe."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import llm_provider
from llm_provider.healthcheck import main as healthcheck

from .fake import ANSWER, KEY, MODEL, Exchange, FakeEngine, event, free_port

SOURCE = Path(llm_provider.__file__).parents[1]


async def start(*arguments: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **environ},
    )


@asynccontextmanager
async def served(
    engine: FakeEngine, keys: Path
) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    port = free_port()
    process = await start(
        "llm_provider.api",
        "--host=127.0.0.1",
        f"--port={port}",
        CHAT_API_KEYS_FILE=str(keys),
        LLM_PROVIDER="llamacpp",
        LLM_BASE_URL=engine.url,
        LLM_MODEL=MODEL,
    )
    try:
        async with asyncio.timeout(15):
            while await asyncio.to_thread(healthcheck, port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield port, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_stop_lets_a_stream_finish(engine: FakeEngine, keys: Path) -> None:
    stopping = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("first "))
        await stopping.wait()
        await asyncio.sleep(0.3)
        await exchange.chunk(event("last", "stop") + b"data: [DONE]\n\n")
        await exchange.chunk(b"")

    engine.on("/v1/chat/completions", slow)
    async with served(engine, keys) as (port, process):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        body = {"stream": True, "messages": [{"role": "user", "content": "a-secret-question"}]}
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            httpx.AsyncClient(headers=headers) as client,
            client.stream("POST", url, json=body) as answer,
        ):
            chunks = answer.aiter_raw()
            received = await anext(chunks)
            process.send_signal(signal.SIGTERM)
            stopping.set()
            async for chunk in chunks:
                received += chunk
        assert received.endswith(b"data: [DONE]\n\n")
        out, err = await asyncio.wait_for(process.communicate(), 5)
    assert err == b""
    entries = [json.loads(line) for line in out.splitlines()]
    (request,) = [entry for entry in entries if entry["message"] == "request"]
    assert (request["status"], request["outcome"]) == (200, "complete")
    assert b"a-secret-question" not in out
    assert KEY.encode() not in out


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "CHAT_API_KEYS_FILE is not set; it must name a file with one API key per line.\n"),
        ({"CHAT_API_KEYS_FILE": os.devnull}, "The key file /dev/null holds no key"),
    ],
)
async def test_it_does_not_start_without_keys(environ: dict[str, str], sentence: str) -> None:
    process = await start("llm_provider.api", **environ)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode().startswith(sentence)
    assert b"Traceback" not in err


async def test_the_command_as_a_module(engine: FakeEngine) -> None:
    process = await start("llm_provider", "models", "--url", engine.url)
    out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, f"{MODEL}\n")


async def test_a_terminal_that_cannot_show_all_characters(api: str, keys: Path) -> None:
    arguments = ("llm_provider", "check", "--url", api, "--key-file", str(keys))
    process = await start(*arguments, "--answer", "Other", PYTHONIOENCODING="ascii")
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    lines = out.decode("ascii").splitlines()
    assert lines[0].startswith("ok     health ")
    assert lines[4].startswith("FAILED chat ")
    assert "caf\\xe9" in lines[4]


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
        "import sys, llm_provider.healthcheck; print(*sys.modules)",
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(SOURCE)},
    )
    out, _ = await process.communicate()
    loaded = set(out.decode().split())
    assert "llm_provider.healthcheck" in loaded
    assert not loaded & {"httpx", "fastapi", "asyncio", "ssl", "llm_provider.base"}


def test_every_public_name_is_there() -> None:
    for name in llm_provider.__all__:
        assert getattr(llm_provider, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = llm_provider.nothing
