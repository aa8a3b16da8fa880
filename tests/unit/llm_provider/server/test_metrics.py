"""What /metrics tells, and that it adds up."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.providers.selection import PROVIDERS

from ..fake import AUTH, MODEL, PROMPT_TOKENS, WORDS, Exchange, FakeEngine, event, serve_api, until

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
MESSAGE = "/api/chat"


async def told(client: httpx.AsyncClient) -> dict[str, float]:
    """Every sample: its name and its labels' values, in the order of their names."""
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
    return {
        " ".join([sample.name, *(sample.labels[name] for name in sorted(sample.labels))]): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def outcomes(samples: dict[str, float]) -> dict[str, float]:
    """How often requests of each route ended how: "KEY OUTCOME ROUTE"."""
    start = "edge_llm_requests_total "
    return {
        name.removeprefix(start).removeprefix("key-1 "): n
        for name, n in samples.items()
        if name.startswith(start)
    }


async def test_each_request_is_counted_once_by_how_it_ended(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async with (
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=5) as client,
        httpx.AsyncClient(base_url=url, timeout=60) as stranger,
    ):
        for stream in (False, True):
            await client.post(CHAT, json=BODY | {"stream": stream})
        await client.post(MESSAGE, json={"message": "Hello"})
        await client.post(COMPLETIONS, json={"prompt": "Hello"})
        await client.post(RESPONSES, json={"input": "Hello"})
        await client.post(EMBEDDINGS, json={"input": "Hello"})
        await client.post(CHAT, json={})
        await client.post(CHAT, json=BODY | {"model": "gpt-5"})
        await client.post(CHAT, content=b" " * 5_000_000)
        await client.get(CHAT)
        await client.get("/nothing/such")
        await stranger.get("/nothing/such")
        await stranger.post(CHAT, json=BODY)
        await stranger.get("/health")  # asked every few seconds, and told of nothing
        engine.on(CHAT, lambda x: x.answer({"error": {"message": "no"}}, 400))
        await client.post(CHAT, json=BODY)
        engine.on(CHAT, lambda x: x.answer({"error": {"message": "no"}}, 500))
        await client.post(CHAT, json=BODY | {"stream": True})
        engine.on(CHAT, lambda x: x.answer({"error": {"message": "no"}}, 503))
        await client.post(CHAT, json=BODY)
        engine.on(CHAT, lambda x: x.stream(event("Hel")))
        await client.post(CHAT, json=BODY | {"stream": True})
        await client.post(MESSAGE, json={"message": "Hello", "stream": True})
        assert outcomes(await told(client)) == {
            f"complete {CHAT}": 2,
            f"complete {MESSAGE}": 1,
            f"complete {COMPLETIONS}": 1,
            f"complete {RESPONSES}": 1,
            f"not_supported_by_engine {EMBEDDINGS}": 1,
            f"bad_request {CHAT}": 1,
            f"model_not_found {CHAT}": 1,
            f"body_too_large {CHAT}": 1,
            f" no_route {CHAT}": 1,  # for which nobody looks at the key
            " no_route other": 2,
            f" invalid_api_key {CHAT}": 1,
            f"rejected {CHAT}": 1,
            f"engine_error {CHAT}": 1,
            f"engine_busy {CHAT}": 1,
            f"interrupted {CHAT}": 1,
            f"interrupted {MESSAGE}": 1,
        }
        samples = await told(client)
        # What clients make up never becomes a label.
        assert outcomes(samples)["complete /metrics"] == 1
        assert samples[f"edge_llm_request_seconds_count {CHAT}"] == 11


@pytest.mark.parametrize("name", PROVIDERS)
async def test_tokens_and_times(keys: Path, name: str) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=5) as client,
    ):
        samples = await told(client)
        assert not [sample for sample in samples if sample.startswith("edge_llm_tokens_total")]
        asked = [
            (CHAT, BODY),
            (CHAT, BODY | {"stream": True}),
            (CHAT, BODY | {"stream": True, "stream_options": {"include_usage": True}}),
            (MESSAGE, {"message": "Hello"}),
            (MESSAGE, {"message": "Hello", "stream": True}),
            (COMPLETIONS, {"prompt": "Hello"}),
            (RESPONSES, {"input": "Hello"}),
            (RESPONSES, {"input": "Hello", "stream": True}),
        ]
        for count, (path, body) in enumerate(asked, 1):
            assert (await client.post(path, json=body)).status_code == 200
            samples = await told(client)
            assert samples["edge_llm_tokens_total in key-1"] == count * PROMPT_TOKENS
            assert samples["edge_llm_tokens_total out key-1"] == count * len(WORDS)
        assert samples[f"edge_llm_ttft_seconds_count {CHAT}"] == 2  # streams have one
        assert samples[f"edge_llm_ttft_seconds_sum {CHAT}"] > 0
        assert samples[f"edge_llm_request_seconds_count {CHAT}"] == 3
        assert (
            samples[f"edge_llm_ttft_seconds_sum {CHAT}"]
            < samples[f"edge_llm_request_seconds_sum {CHAT}"]
        )


async def test_the_time_to_the_first_token_includes_the_line(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    async with (
        serve_api(llm, keys, PARALLEL="1") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=5) as client,
    ):
        goes_on = engine.paused()
        tasks = [
            asyncio.create_task(client.post(CHAT, json=BODY | {"stream": True})) for _ in range(2)
        ]
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.3)
        goes_on.set()
        await asyncio.gather(*tasks)
        samples = await told(client)
        assert samples[f"edge_llm_ttft_seconds_count {CHAT}"] == 2
        assert samples[f"edge_llm_ttft_seconds_sum {CHAT}"] > 0.55


async def test_the_line_and_the_engines_state(
    engine: FakeEngine, llm: LlamaCpp, keys: Path
) -> None:
    state = [
        "edge_llm_requests_in_flight",
        "edge_llm_requests_queued",
        "edge_llm_requests_held",
        "edge_llm_slots",
        "edge_llm_holding",
        f"edge_llm_engine_ready {MODEL} llamacpp",
    ]

    async def seen(wanted: list[int]) -> None:
        """Wait until it is told so."""
        for _ in range(500):
            samples = await told(client)
            found = [samples[name] for name in state]
            if found == wanted:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"{wanted} was not told; last was {found}")

    engine.loading = True
    async with (
        serve_api(llm, keys, PARALLEL="2") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=10) as client,
    ):
        goes_on = engine.paused()
        await seen([0, 0, 0, 2, 0, 0])
        tasks = [
            asyncio.create_task(client.post(CHAT, json=BODY | {"max_tokens": 9})) for _ in range(5)
        ]
        await seen([0, 0, 5, 2, 0, 0])
        engine.loading = False
        await seen([2, 3, 0, 2, 0, 1])
        goes_on.set()
        await asyncio.gather(*tasks)
        await seen([0, 0, 0, 2, 0, 1])


async def test_a_name_in_prometheus_style(client: httpx.AsyncClient) -> None:
    """Every line is one that Prometheus reads; ours begin with the project's name."""
    text = (await client.get("/metrics")).text
    for line in text.splitlines():
        assert re.match(
            r"# (HELP|TYPE) |(edge_llm|process)_[a-z_]+(\{[^}]*\})? [-+.0-9einfa]+$", line
        )
    assert "process_resident_memory_bytes" in text


async def test_a_client_that_leaves_in_the_middle_is_counted(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.chunk(event("on "))
            await asyncio.sleep(0.005)

    engine.on(CHAT, endless)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        await anext(answer.aiter_raw())
    await until(lambda: engine.running == 0)
    await asyncio.sleep(0.05)
    assert outcomes(await told(client)) == {f"client_left {CHAT}": 1}
