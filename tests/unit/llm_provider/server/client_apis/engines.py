"""A chat API before an engine of each kind, and what the engines answer at their own routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_provider.providers.routes import CHAT
from llm_provider.providers.selection import PROVIDERS

from ...fake import DONE, MODEL, Exchange, FakeEngine, event, serve_api

ENGINES = ("llamacpp", "ollama", "vllm")


@asynccontextmanager
async def chat_api(
    kind: str,
    keys: Path,
    *,
    silence: float = 5,
    loading: bool = False,
    strict: bool = False,
    **environ: str,
) -> AsyncIterator[tuple[FakeEngine, str]]:
    """Yield an engine, which may be silent for so many seconds, and the URL of its chat API."""
    fake = FakeEngine(kind)
    fake.loading = loading
    async with (
        fake.serving() as engine,
        PROVIDERS[kind](
            model=MODEL, base_url=engine.url, timeout=silence, strict=strict
        ) as provider,
        serve_api(provider, keys, **environ) as url,
    ):
        yield engine, url


def asked(engine: FakeEngine) -> list[str]:
    """The paths at which an engine was asked, but for loading its model."""
    return [each.path for each in engine.posts if each.path != "/api/generate"]


def say_in_two_parts(engine: FakeEngine) -> asyncio.Event:
    """Have the engine stream "Hel", and "lo." once the event returned is set."""
    goes_on = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        await goes_on.wait()
        await exchange.chunk(event("lo.") + event(finish_reason="stop") + DONE)
        await exchange.chunk(b"")

    engine.on(CHAT, answer)
    return goes_on


async def endless(exchange: Exchange) -> None:
    """Answer for ever."""
    if exchange.body["stream"]:
        await exchange.begin_stream()
    while True:
        if exchange.body["stream"]:
            await exchange.chunk(event("on "))
        await asyncio.sleep(0.005)


def offer(engine: FakeEngine) -> None:
    """Have an engine answer at the routes that it offers beside OpenAI's."""
    if engine.kind == "llamacpp":
        engine.on("/apply-template", lambda x: x.answer({"prompt": "<user>Hello"}))
        engine.on("/tokenize", lambda x: x.answer({"tokens": [1, 2, 3]}))
        engine.on("/detokenize", lambda x: x.answer({"content": "Hello"}))
        engine.on("/infill", lambda x: x.answer({"content": "middle", "tokens_predicted": 1}))
    if engine.kind == "vllm":
        tokens = {"count": 3, "max_model_len": 2048, "tokens": [1, 2, 3], "token_strs": None}
        engine.on("/tokenize", lambda x: x.answer(tokens))
        engine.on("/detokenize", lambda x: x.answer({"prompt": "Hello"}))
    if engine.kind != "ollama":
        engine.on("/v1/rerank", lambda x: x.answer({"model": MODEL, "results": RANKS}))
    engine.on("/v1/embeddings", lambda x: x.answer(VECTORS))
    engine.on("/v1/audio/transcriptions", lambda x: x.answer({"text": "Good day."}))


RANKS = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
VECTORS: dict[str, Any] = {
    "object": "list",
    "model": MODEL,
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}
