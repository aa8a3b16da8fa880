"""Many requests: none is lost, and every answer is exact."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator

import aiohttp
import pytest

from tests.integration.engines.conftest import House
from tests.integration.engines.running import CHAINS, settings_of
from tests.integration.engines.serving import CHAT, KEY, Served

ANSWER = CHAINS["smoke"].answer
HELLO = {"messages": [{"role": "user", "content": "Are you there?"}]}
LEVELS = (1, 2, 4, 8, 16, 32, 48, 64)
"""How many requests run at a time; as many of the 2,000 go to each."""
EACH = 2000 // len(LEVELS)


def said(raw: bytes) -> str:
    """The text of a streamed answer that came to its end; of another, why it did not."""
    *events, done, rest = raw.split(b"\n\n")
    if done != b"data: [DONE]" or rest:
        return f"no end: {raw[-200:]!r}"
    found = (json.loads(event.removeprefix(b"data: ")) for event in events)
    deltas = (choice["delta"] for event in found for choice in event["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


async def ask(session: aiohttp.ClientSession, url: str, body: bytes) -> str:
    """What came of one streamed request: the answer's text, or what went wrong."""
    try:
        async with session.post(url, data=body) as answer:
            raw = await answer.read()
            return said(raw) if answer.status == 200 else f"{answer.status}: {raw[:200]!r}"
    except aiohttp.ClientError as error:
        return f"{type(error).__name__}: {error}"


async def load(base_url: str, key: str) -> tuple[Counter[str], float]:
    """2,000 streamed requests, 1 to 64 at a time; what came of them, and seconds."""
    body = json.dumps(HELLO | {"model": "smoke", "stream": True}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    outcomes: Counter[str] = Counter()

    async def work(session: aiohttp.ClientSession, left: Iterator[int]) -> None:
        for _ in left:
            outcomes[await ask(session, base_url + CHAT, body)] += 1

    started = time.monotonic()
    for level in LEVELS:
        left = iter(range(EACH))
        # Connections are kept alive, as clients do.
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await asyncio.gather(*(work(session, left) for _ in range(level)))
    return outcomes, time.monotonic() - started


async def test_2000_streamed_requests(smoke: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the chat API none fails. What llama-server itself loses of them is printed beside."""
    engine = smoke.engine
    through, seconds = await load(smoke.api.base_url, KEY)
    told = f"through the chat API {through.total() - through[ANSWER]} failed, {seconds:.1f} s"
    if engine.provider == "llamacpp" and engine.key_file:
        straight, seconds = await load(engine.base_url, engine.key_file.read_text().strip())
        lost = straight.total() - straight[ANSWER]
        told += f"; straight at the engine {lost} failed, {seconds:.1f} s"
    with capsys.disabled():
        print(f"\n{engine.provider}: 2,000 streamed requests, 1 to 64 at a time: {told}")
    assert through == {ANSWER: 2000}


@pytest.mark.engines("llamacpp", "ollama")
async def test_another_engine_under_load(house: House) -> None:
    """llama-server, Ollama, llama-server, while 8 clients ask: nobody notices."""
    engines = {name: house.served(name, "smoke").engine for name in ("llamacpp", "ollama")}
    file = house.folder / "engine"

    def point(name: str) -> None:
        lines = [f"{key}={value}" for key, value in settings_of(engines[name]).items()]
        fresh = file.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fresh.replace(file)

    point("llamacpp")
    api = house.api({"LLM_ENGINE_FILE": str(file)})
    await asyncio.to_thread(api.start)
    by_engine: Counter[str] = Counter()
    stop = asyncio.Event()

    async with api.client() as client:

        async def ask_on(streamed: bool) -> None:
            while not stop.is_set():
                answer = await client.post(CHAT, json=HELLO | {"stream": streamed})
                assert answer.status_code == 200, answer.text
                if streamed:
                    assert said(answer.content) == ANSWER
                    made_by = json.loads(answer.content.split(b"\n\n")[0][6:])
                else:
                    made_by = answer.json()
                    assert made_by["choices"][0]["message"]["content"] == ANSWER
                # Ollama's says so, llama-server's is its version.
                ollama = made_by["system_fingerprint"] == "fp_ollama"
                by_engine["ollama" if ollama else "llamacpp"] += 1

        asking = [asyncio.create_task(ask_on(number % 2 == 0)) for number in range(8)]
        try:
            for name in ("llamacpp", "ollama", "llamacpp", "ollama", "llamacpp"):
                point(name)
                before = by_engine[name]
                async with asyncio.timeout(120):
                    while by_engine[name] < before + 50:
                        for task in asking:
                            if task.done():
                                task.result()
                        await asyncio.sleep(0.02)
            answers = await client.get("/ready")
            assert answers.json()["provider"] == "llamacpp"
        finally:
            stop.set()
            await asyncio.gather(*asking)
    assert by_engine["ollama"] >= 100
    assert by_engine["llamacpp"] >= 150
    api.stop()
