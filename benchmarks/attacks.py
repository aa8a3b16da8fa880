"""Attacks on a chat API, bounded and on loopback: its memory, and what another client notices.

The attacks are those of the unit tests, here on the container that boards run, with an engine.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from benchmarks.candidates import KEY, OTHER_KEY, Candidate
from benchmarks.process import forget_peak, memory
from llm_provider.cli.bench import quantile
from llm_provider.providers.routes import CHAT
from tests.integration.attacks.attacks import HEAD, MIB, Attack, flood, large

RSS_LIMIT = 150.0
"""MiB."""
CONNECTIONS, BODIES, REQUESTS = 1000, 64, 500
OTHER_ADDRESS = "127.0.0.9"
HOLD_SECONDS = 10.0
"""How long connections that do nothing stay, unless the chat API closes them before."""
_TRIES = 200
BODY = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 16}


@dataclass
class Outcome:
    """Of one attack. `ttfts`: the other client's, in seconds; `own`: the attacker's requests that
    had to be answered, by how they ended."""

    name: str
    peak: float = 0.0
    ttfts: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    own: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.failures.total() + sum(n for how, n in self.own.items() if how != "200")

    def row(self) -> list[str]:
        """Return the cells: name, peak RSS, the other's TTFT (p50, most), requests, failed."""
        middle = quantile(self.ttfts, 0.5)
        most = max(self.ttfts, default=None)
        return [
            self.name,
            f"{self.peak:.0f} MiB",
            *("-" if each is None else f"{each * 1000:.0f} ms" for each in (middle, most)),
            str(len(self.ttfts) + self.failures.total() + self.own.total()),
            str(self.failed),
        ]


async def header_floods(api: Candidate, outcome: Outcome) -> None:
    """Headers without end: many small ones, a large one, and one without a name."""
    port = port_of(api)
    small = b"".join(b"x-%04d: %s\r\n" % (number, b"y" * 20) for number in range(2000))
    for head, piece in ((HEAD, small), (HEAD + b"x: ", b"y" * 65536), (b"", b"\r\n" * 32768)):
        await asyncio.gather(*(flood(port, head, piece, 32 * MIB) for _ in range(8)))


async def slow_headers(api: Candidate, outcome: Outcome) -> None:
    """500 connections, each with a header that stays just below its limit."""
    await _stand(api, 500, HEAD + b"x: " + b"y" * 15_000)


async def slow_bodies(api: Candidate, outcome: Outcome) -> None:
    """65 requests with a key whose bodies do not arrive."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {4 * MIB}\r\n\r\n{{"
    )
    await _stand(api, 65, head.encode())


async def idle_connections(api: Candidate, outcome: Outcome) -> None:
    """1,000 connections that send nothing."""
    await _stand(api, CONNECTIONS, b"")


async def large_bodies(api: Candidate, outcome: Outcome) -> None:
    """64 bodies of 4 MiB, with a key; all are to be answered."""
    content = large(b"[],")
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=api.base_url, timeout=600, limits=limits) as client:
        await asyncio.gather(*(_ask(client, outcome, content) for _ in range(BODIES)))


async def greedy_client(api: Candidate, outcome: Outcome) -> None:
    """500 requests of one key at once; who is refused comes again when the answer says so.

    Over httpx's own number of connections, 100: an address has no more than 128 (`Limits`).
    """
    async with httpx.AsyncClient(base_url=api.base_url, timeout=600) as client:
        await asyncio.gather(*(_ask(client, outcome) for _ in range(REQUESTS)))


ATTACKS: tuple[Callable[[Candidate, Outcome], Awaitable[None]], ...] = (
    header_floods,
    slow_headers,
    slow_bodies,
    idle_connections,
    large_bodies,
    greedy_client,
)


def port_of(api: Candidate) -> int:
    return int(api.base_url.rpartition(":")[2])


async def run(api: Candidate) -> list[Outcome]:
    """Measure the other client alone, then beside each attack."""
    found = [await _beside(api, "none", _nothing)]
    for attack in ATTACKS:
        found.append(await _beside(api, attack.__name__.replace("_", " "), attack))
    return found


async def _nothing(api: Candidate, outcome: Outcome) -> None:
    await asyncio.sleep(HOLD_SECONDS)


async def _beside(
    api: Candidate, name: str, attack: Callable[[Candidate, Outcome], Awaitable[None]]
) -> Outcome:
    outcome, pid = Outcome(name), api.pid
    forget_peak(pid)
    task = asyncio.ensure_future(attack(api, outcome))
    # Connections of one address are limited: the other client is on another machine, so to say.
    elsewhere = httpx.AsyncHTTPTransport(local_address=OTHER_ADDRESS)
    async with httpx.AsyncClient(base_url=api.base_url, timeout=600, transport=elsewhere) as other:
        while True:
            await _stream(other, outcome)
            if task.done():
                break
            await asyncio.sleep(0.05)
    await task
    outcome.peak = memory(pid, "VmHWM")
    return outcome


async def _stream(client: httpx.AsyncClient, outcome: Outcome) -> None:
    """Ask once as the other client."""
    begun, first, last = time.perf_counter(), math.nan, b""
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    try:
        async with client.stream("POST", CHAT, json=BODY, headers=headers) as answer:
            if answer.status_code != 200:
                outcome.failures[str(answer.status_code)] += 1
                return
            async for part in answer.aiter_raw():
                last = last[-64:] + part
                # A comment tells that the request is queued.
                if math.isnan(first) and b"data:" in part:
                    first = time.perf_counter() - begun
    except httpx.HTTPError as error:
        outcome.failures[type(error).__name__] += 1
        return
    if b"data: [DONE]" not in last:
        outcome.failures["no [DONE]"] += 1
        return
    outcome.ttfts.append(first)


async def _ask(client: httpx.AsyncClient, outcome: Outcome, content: bytes | None = None) -> None:
    """Ask once as the attacker, again where the answer says when."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = content or json.dumps(BODY | {"stream": False}).encode()
    how = "never let in"
    for _ in range(_TRIES):
        try:
            answer = await client.post(CHAT, headers=headers, content=body)
        except httpx.HTTPError as error:
            how = type(error).__name__
            break
        if answer.status_code not in (429, 503) or "Retry-After" not in answer.headers:
            how = str(answer.status_code)
            break
        await asyncio.sleep(int(answer.headers["Retry-After"]))
    outcome.own[how] += 1


async def _stand(api: Candidate, count: int, data: bytes) -> None:
    """Hold connections, from ten addresses of loopback, and close what is left of them."""
    attack = Attack(port_of(api))
    try:
        for number in range(10):
            await attack.open(count // 10, data, f"127.0.1.{number + 1}")
        await asyncio.sleep(HOLD_SECONDS)
    finally:
        attack.close()
