"""One load on several addresses by turns, and what each costs over the first.

Each round goes to all of them, one after the other, and each is first as often as the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.process import cpu_seconds
from llm_provider.cli.bench import Address, Load, Tally, ask_round, quantile, server_at, warm

TARGET_TTFT, TARGET_RATIO, TARGET_IDLE = 0.0025, 0.98, 60.0
"""Seconds to the first token that may be added; throughput to the engine's; MiB."""


@dataclass
class Side:
    """An address, what it did at one level, and the CPU time of the process `pid` meanwhile."""

    name: str
    address: Address
    pid: int | None = None
    tally: Tally = field(default_factory=Tally)
    cpu: float = 0.0

    def added_ttft(self, direct: Tally, share: float = 0.5) -> float | None:
        """Seconds to the first token beyond those of the engine alone, of the same quantile."""
        mine, other = quantile(self.tally.ttfts, share), quantile(direct.ttfts, share)
        return None if mine is None or other is None else mine - other

    def ratio(self, direct: Tally) -> float | None:
        """Tokens per second over those of the engine alone."""
        mine, other = self.tally.throughput, direct.throughput
        return mine / other if mine and other else None

    @property
    def cpu_per_token(self) -> float | None:
        """Seconds; None where no process was watched, or no token came."""
        return self.cpu / self.tally.tokens if self.pid and self.tally.tokens else None


def order(count: int, number: int) -> list[int]:
    """Whose turn it is in a round: each place goes round."""
    return [(place + number) % count for place in range(count)]


async def measure(load: Load, model: str, parallel: int, sides: Sequence[Side]) -> None:
    """Put one level's load on all sides. Raises LLMError where the first request fails."""
    rounds = max(math.ceil(load.requests / parallel), len(sides))
    async with AsyncExitStack() as stack:
        servers = []
        for side in sides:
            server = server_at(side.address, model, load)
            servers.append(await stack.enter_async_context(server))
            await warm(server, load)
        end = time.monotonic() + load.seconds
        for number in range(rounds):
            if number and time.monotonic() >= end:
                break
            for place in order(len(sides), number):
                side = sides[place]
                before = cpu_seconds(side.pid) if side.pid else 0.0
                await ask_round(servers[place], side.tally, parallel, load, lambda: None)
                side.cpu += cpu_seconds(side.pid) - before if side.pid else 0.0


def row(side: Side, direct: Tally) -> list[str]:
    """Return the cells of a side: failed, requests, TTFT added (p50, p95), CPU, throughput."""
    added = [side.added_ttft(direct, share) for share in (0.5, 0.95)]
    ratio, cpu, pace = side.ratio(direct), side.cpu_per_token, side.tally.throughput
    each_request = side.cpu / side.tally.requests if side.pid and side.tally.requests else None
    return [
        side.name,
        str(side.tally.failed),
        str(side.tally.requests),
        *("-" if each is None else f"{each * 1000:.2f} ms" for each in added),
        "-" if each_request is None else f"{each_request * 1000:.2f} ms",
        "-" if cpu is None else f"{cpu * 1e6:.0f} µs",
        "-" if pace is None else f"{pace:.0f}/s",
        "-" if ratio is None else f"{ratio:.3f}",
    ]  # fmt: skip


def verdict(what: str, found: float | None, target: float, *, most: bool, unit: str = "") -> str:
    """Return a sentence about a figure and its target, the `most` or the least that it may be."""
    wanted = f"at {'most' if most else 'least'} {target:g}{unit}"
    if found is None:
        return f"{what}: not measured; wanted: {wanted}."
    met = found <= target if most else found >= target
    return f"{what}: {found:.3g}{unit}; wanted: {wanted}: {'met' if met else 'NOT MET'}."
