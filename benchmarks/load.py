"""2,000 streamed requests at 1 to 64 in parallel on an engine, through the chat API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llm_provider.cli.bench import Address, Load, Result, bench

LEVELS = (1, 2, 4, 8, 16, 32, 64)
REQUESTS = 2000
LEVEL_SECONDS = 600.0


def shares(total: int, levels: Sequence[int]) -> int:
    """Return the requests of each level, such that all of them are `total` at least."""
    return -(-total // len(levels))


def run(address: Address, model: str) -> Result:
    """Put the load on a chat API: failed requests are counted. Raises LLMError."""
    load = Load(shares(REQUESTS, LEVELS), LEVELS, max_tokens=32, seconds=LEVEL_SECONDS)
    return asyncio.run(bench(load, address, model=model))


def rows(engine: str, result: Result) -> list[list[str]]:
    """Return a row for each level: engine, in parallel, requests, failed, the failures' words."""
    return [
        [
            engine,
            str(level.parallel),
            str(level.url.requests),
            str(level.url.failed),
            "; ".join(f"{count} x {words}" for words, count in level.url.failures.items()),
        ]
        for level in result.levels
    ]


def complaint(result: Result) -> str | None:
    """Return what is wrong with a run, as a sentence; None: nothing."""
    sent = sum(level.url.requests for level in result.levels)
    if sent < REQUESTS:
        return f"{sent} requests were sent within the time; wanted: {REQUESTS}."
    return f"{result.failed} of {sent} requests failed." if result.failed else None
