"""The chat API as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.routes import CHAT

from ..fake import (
    ANSWER,
    DONE,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    error_of,
    event,
    free_port,
    stream_of,
    until,
)
from .processes import BODY, CANARY, served, start

STREAM = BODY | {"stream": True}


async def read(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_it_serves(engine: FakeEngine, keys: Path) -> None:
    """Under uvloop, as it does on a host."""
    async with served(engine, keys, PARALLEL="4") as api:
        assert (await api.client.post(CHAT, json=BODY)).json() == completion()
        answers = await asyncio.gather(*(api.client.post(CHAT, json=STREAM) for _ in range(30)))
        assert {answer.content for answer in answers} == {stream_of()}
        answer = await api.client.post("/api/chat", json={"message": CANARY})
        assert answer.json()["answer"] == ANSWER
        assert engine.most_running <= 4
        async with api.client.stream("POST", CHAT, json=STREAM) as left:
            assert left.status_code == 200
        api.signal(signal.SIGTERM)
        requests = [entry for entry in await api.ended() if entry["path"] != "/ready"]
    assert [entry["outcome"] for entry in requests[:-1]] == ["complete"] * 32
    assert requests[0]["client"] == "127.0.0.1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_finish_what_runs_and_sends_away_what_waits(
    engine: FakeEngine, keys: Path, number: int
) -> None:
    goes_on = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        if not exchange.body["stream"]:
            await goes_on.wait()
            await exchange.answer(completion())
            return
        await exchange.begin_stream()
        await exchange.chunk(event("first "))
        await goes_on.wait()
        await exchange.chunk(event("last", "stop") + DONE)
        await exchange.chunk(b"")

    engine.on(CHAT, slow)
    async with served(engine, keys, PARALLEL="2") as api:
        whole = asyncio.create_task(api.client.post(CHAT, json=BODY))
        async with api.client.stream("POST", CHAT, json=STREAM) as answer:
            chunks = answer.aiter_raw()
            received = await anext(chunks)
            await until(lambda: engine.running == 2)
            waiting = [
                asyncio.create_task(api.client.post(CHAT, json=body)) for body in (BODY, STREAM)
            ]
            while (await api.client.get("/ready")).json()["queued"] != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            api.signal(number)
            for refused in await asyncio.gather(*waiting):
                assert refused.status_code == 503
                assert error_of(refused)["code"] == "stopping"
                assert int(refused.headers["Retry-After"]) > 0
            # Nobody new is let in, neither over an open connection nor a new one.
            with pytest.raises(httpx.HTTPError):
                (await api.client.get("/health")).raise_for_status()
            goes_on.set()
            received += await read(chunks)
        assert received == event("first ") + event("last", "stop") + DONE
        assert (await whole).json() == completion()
        requests = await api.ended()
    assert sorted(entry["outcome"] for entry in requests if entry["path"] == CHAT) == [
        "complete",
        "complete",
        "stopping",
        "stopping",
    ]
    assert len(engine.asked) == 2


async def test_a_stop_sends_away_who_is_held(engine: FakeEngine, keys: Path) -> None:
    async with served(engine, keys) as api:
        engine.loading = True
        held = asyncio.create_task(api.client.post(CHAT, json=BODY))
        while (await api.client.get("/ready")).json()["held"] != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        api.signal(signal.SIGTERM)
        assert error_of(await held)["code"] == "stopping"
        await api.ended()


async def test_what_runs_too_long_is_cut_off_by_a_stop_and_told(
    engine: FakeEngine, keys: Path
) -> None:
    async def endless(exchange: Exchange) -> None:
        if exchange.body["stream"]:
            await exchange.begin_stream()
        while True:
            if exchange.body["stream"]:
                await exchange.chunk(event("on "))
            await asyncio.sleep(0.02)

    engine.on(CHAT, endless)
    async with served(engine, keys, PARALLEL="3", LLM_DRAIN_SECONDS="1") as api:
        whole = asyncio.create_task(api.client.post(CHAT, json=BODY))
        message = {"message": CANARY, "stream": True}
        told = asyncio.create_task(api.client.post("/api/chat", json=message))
        async with api.client.stream("POST", CHAT, json=STREAM) as answer:
            chunks = answer.aiter_raw()
            received = await anext(chunks)
            await until(lambda: engine.running == 3)
            api.signal(signal.SIGTERM)
            received += await read(chunks)
        for raw in (received, (await told).content):
            assert DONE not in raw
            last = json.loads(raw.rpartition(b"data: ")[2])
            assert last["error"]["code"] == "stopped"
            assert "stopped before the answer was complete" in last["error"]["message"]
        assert received.startswith(event("on "))
        assert (await whole).status_code == 503
        assert error_of(await whole)["code"] == "stopped"
        assert (await whole).headers["x-should-retry"] == "false"
        requests = await api.ended()
    assert [entry["outcome"] for entry in requests if entry["path"] != "/ready"] == ["stopped"] * 3
    await until(lambda: engine.running == 0, "the end of the engine's work")


async def test_a_stop_before_it_has_begun(engine: FakeEngine, keys: Path) -> None:
    """A signal at any time of its start ends it, and not in a traceback."""
    for seconds in (0.1, 0.4, 0.7, 1.0):
        process = await start(
            "llm_provider.server",
            "--host=127.0.0.1",
            f"--port={free_port()}",
            CHAT_API_KEYS_FILE=str(keys),
            LLM_BASE_URL=engine.url,
            LLM_MODEL=MODEL,
        )
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(process.communicate(), 15)
        assert err == b""
        assert process.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "CHAT_API_KEYS_FILE is not set; it must name a file with one API key per line.\n"),
        ({"CHAT_API_KEYS_FILE": "/dev/null/keys"}, "The key file /dev/null/keys cannot be read: "),
    ],
)
async def test_it_does_not_start_without_keys(environ: dict[str, str], sentence: str) -> None:
    process = await start("llm_provider.server", **environ)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode().startswith(sentence)
    assert b"Traceback" not in err


async def test_a_port_that_is_taken(engine: FakeEngine, keys: Path) -> None:
    process = await start(
        "llm_provider.server",
        "--host=127.0.0.1",
        f"--port={engine.port}",
        CHAT_API_KEYS_FILE=str(keys),
        LLM_BASE_URL=engine.url,
        LLM_MODEL=MODEL,
    )
    out, err = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode != 0
    assert b"address already in use" in out.lower()
    assert err == b""


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
    (failed,) = [line for line in lines if line.startswith("FAILED chat ")]
    assert "caf\\xe9" in failed
