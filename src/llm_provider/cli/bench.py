"""How fast a chat API or an engine answers, and what one costs over another.

Requests go out in rounds, as many at once as the level says; the next round begins when the last
answer of the one before is complete. With a second address each round goes to both, one after the
other, and either is first as often as the other: what else the machine does then meets both alike.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from llm_provider.cli.bench_prompt import SAMPLE_WORDS, make_prompt, words_for
from llm_provider.cli.check import DEFAULT_PROMPT
from llm_provider.cli.timed_answer import TimedAnswer
from llm_provider.client.chat_api import ChatAPIClient
from llm_provider.errors import (
    ConfigurationError,
    EngineRefusedError,
    EngineTimeoutError,
    LLMError,
    MalformedAnswer,
    Unsupported,
)
from llm_provider.http.transports import Verify
from llm_provider.http.url import redact
from llm_provider.providers.routes import CHAT

_SOURCE = random.SystemRandom()


@dataclass(frozen=True)
class Load:
    """What is asked, how often. `levels`: how many requests run at once, one level after another.

    A level has `requests` requests for each address, or as many as fill one round where that is
    more. No round begins after `seconds` of its level, and each request must be complete within
    `timeout` seconds: a level takes no longer than both together.

    With `prompt_tokens` each request has a prompt of its own, of about so many tokens, in the place
    of `prompt`: an engine reads a prompt that it knows at no cost. `prompt_words` is their length
    in words, which `bench` finds out.
    """

    requests: int = 16
    levels: tuple[int, ...] = (1, 4)
    prompt: str = DEFAULT_PROMPT
    prompt_tokens: int | None = None
    prompt_words: int | None = None
    max_tokens: int = 64
    seconds: float = 60.0
    timeout: float = 120.0


@dataclass(frozen=True)
class Address:
    """Where requests go: a chat API's or an engine's URL, and the key that it asks for.

    `verify`: the certificate authorities of an https URL, as `LLMProvider` has it.
    """

    url: str
    key: str | None = None
    verify: Verify = True


@dataclass
class Tally:
    """What one address did at one level. Times in seconds; `ttfts`, `paces`: one per request."""

    ttfts: list[float] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    """Tokens of the prompts, without those that the server took from its cache."""
    prompt_seconds: float = 0.0
    """From the begin of each round to its last stream's first token."""
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def throughput(self) -> float | None:
        """Tokens per second of all streams together; None where there were none."""
        return self.tokens / self.seconds if self.tokens and self.seconds else None

    @property
    def prompt_rate(self) -> float | None:
        """Tokens per second of the prompts of all streams together; None where none is told."""
        known = self.prompt_tokens and self.prompt_seconds
        return self.prompt_tokens / self.prompt_seconds if known else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "failed": self.failed,
            "failures": dict(self.failures),
            "ttft_ms": _both(self.ttfts),
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_per_second": _rounded(self.prompt_rate, 1),
            "tokens": self.tokens,
            "tokens_per_second": {
                "stream": _rounded(quantile(self.paces, 0.5), 2),
                "all": _rounded(self.throughput, 2),
            },
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Level:
    """One level's outcome; `compare` is None where there is no second address."""

    parallel: int
    url: Tally = field(default_factory=Tally)
    compare: Tally | None = None
    begun: float = 0.0
    """When it began and ended, in seconds since 1970, to find what a host's sensors read then."""
    ended: float = 0.0

    @property
    def added_ttft(self) -> tuple[float, float] | None:
        """Seconds to the first token that `url` adds to `compare`: of the medians, of the p95."""
        if self.compare is None or not self.url.ttfts or not self.compare.ttfts:
            return None
        mine, other = self.url.ttfts, self.compare.ttfts
        return (
            (quantile(mine, 0.5) or 0) - (quantile(other, 0.5) or 0),
            (quantile(mine, 0.95) or 0) - (quantile(other, 0.95) or 0),
        )

    @property
    def throughput_ratio(self) -> float | None:
        """Tokens per second of `url` over those of `compare`."""
        mine, other = self.url.throughput, self.compare.throughput if self.compare else None
        return mine / other if mine and other else None

    def as_dict(self) -> dict[str, Any]:
        added = self.added_ttft
        return {
            "parallel": self.parallel,
            "begun": round(self.begun, 3),
            "ended": round(self.ended, 3),
            "url": self.url.as_dict(),
            "compare": self.compare.as_dict() if self.compare else None,
            "added_ttft_ms": added
            and {"p50": round(added[0] * 1000, 2), "p95": round(added[1] * 1000, 2)},
            "throughput_ratio": _rounded(self.throughput_ratio, 4),
        }


@dataclass
class Result:
    """All levels' outcome; `models` is the name asked for at each address."""

    url: str
    compare: str | None
    load: Load
    models: list[str] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    prompt: str = ""
    """The prompt, or one of the prompts."""

    @property
    def failed(self) -> int:
        tallies = [side for level in self.levels for side in (level.url, level.compare) if side]
        return sum(tally.failed for tally in tallies)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.failed,
            "url": self.url,
            "compare": self.compare,
            "models": self.models,
            "prompt": self.prompt,
            "prompt_tokens": self.load.prompt_tokens,
            "max_tokens": self.load.max_tokens,
            "levels": [level.as_dict() for level in self.levels],
        }


class Watcher:
    """Hears of the run as it goes; this one listens to nothing."""

    def starts(self, result: Result) -> None:
        """The addresses answer, and the models are known."""

    def done(self, parallel: int, done: int, total: int) -> None:
        """Of a level's requests (of all addresses), so many are done."""

    def level(self, result: Level) -> None:
        """A level is over."""


class BenchServer(ChatAPIClient):
    """A chat API or an engine under load."""

    name = "the server"

    async def served(self) -> str:
        """The model to ask for where none is named. Raises ConfigurationError for several."""
        try:
            return str((await self.look("/ready"))["model"])
        except (KeyError, MalformedAnswer, Unsupported):
            pass  # not a chat API
        except EngineRefusedError as error:
            if error.status != 404:
                raise
        names = await self.models()
        if len(names) != 1:
            raise ConfigurationError(
                f"{self.base_url} serves {', '.join(names) or 'no model'}; name one with --model."
            )
        return names[0]


async def bench(
    load: Load,
    address: Address,
    compare: Address | None = None,
    *,
    model: str | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Put `load` on an address, or on two in turns; failed requests are counted and reported.

    One request goes to each address first, which is not counted: it loads what is not loaded.
    Raises LLMError where that one fails, ConfigurationError for what cannot be meant.
    """
    watcher = watcher or Watcher()
    addresses = [address, compare] if compare else [address]
    result = Result(redact(address.url), redact(compare.url) if compare else None, load)
    async with AsyncExitStack() as stack:
        servers = []
        for one in addresses:
            name = model or await _served(one, load)
            server = server_at(one, name, load)
            servers.append(await stack.enter_async_context(server))
            result.models.append(name)
            counted = await warm(server, load)
            if load.prompt_tokens and load.prompt_words is None:
                load = replace(load, prompt_words=words_for(load.prompt_tokens, counted))
        result.prompt = _prompt(load)
        watcher.starts(result)
        for parallel in load.levels:
            level = Level(parallel, compare=Tally() if compare else None, begun=time.time())
            await _run(level, servers, load, watcher)
            level.ended = time.time()
            result.levels.append(level)
            watcher.level(level)
    return result


async def _served(address: Address, load: Load) -> str:
    async with server_at(address, "default", load) as server:
        return await server.served()


def server_at(address: Address, model: str, load: Load) -> BenchServer:
    """Return a client of an address; a context manager."""
    return BenchServer(
        model=model,
        base_url=address.url,
        api_key=address.key,
        timeout=load.timeout,
        verify=address.verify,
    )


async def warm(server: BenchServer, load: Load) -> int | None:
    """Ask once, and measure nothing: returns the tokens of the prompt, None where none are told.

    Raises LLMError.
    """
    answer = TimedAnswer()
    try:
        async with (
            asyncio.timeout(load.timeout),
            aclosing(server.raw_stream(CHAT, _body(load))) as chunks,
        ):
            async for chunk in chunks:
                answer.feed(chunk, 0.0)
    except TimeoutError as error:
        raise EngineTimeoutError(_late(server, load)) from error
    return answer.prompt_tokens


async def _run(level: Level, servers: list[BenchServer], load: Load, watcher: Watcher) -> None:
    tallies = [side for side in (level.url, level.compare) if side is not None]
    rounds = max(math.ceil(load.requests / level.parallel), len(servers))
    total = rounds * level.parallel * len(servers)
    deadline = time.monotonic() + load.seconds
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        watcher.done(level.parallel, done, total)

    watcher.done(level.parallel, 0, total)
    for number in range(rounds):
        if number and time.monotonic() >= deadline:
            break
        turns = list(zip(servers, tallies, strict=True))
        for server, tally in turns if number % 2 == 0 else reversed(turns):
            await ask_round(server, tally, level.parallel, load, tick)


async def ask_round(
    server: BenchServer, tally: Tally, parallel: int, load: Load, tick: Callable[[], None]
) -> None:
    """Ask so many at once, wait for all, and add the outcome to `tally`; `tick` after each."""
    started = time.monotonic()
    asked = [asyncio.create_task(_ask(server, load, tick)) for _ in range(parallel)]
    try:
        answers = await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()
    tally.seconds += time.monotonic() - started
    first = started
    for begun, chunks, failure in answers:
        tally.requests += 1
        answer = TimedAnswer()
        try:
            for arrived, chunk in chunks:
                answer.feed(chunk, arrived)
        except LLMError as error:
            failure = str(error)
        if failure is None and not (answer.times and answer.finish_reason):
            failure = f"{server.base_url} gave an answer without text, or without a finish_reason."
        if failure is not None:
            tally.failures[failure] += 1
            continue
        tally.ttfts.append(answer.times[0] - begun)
        first = max(first, answer.times[0])
        tally.prompt_tokens += answer.prompt_tokens_read or 0
        tally.tokens += answer.tokens
        if answer.tokens_per_second is not None:
            tally.paces.append(answer.tokens_per_second)
    tally.prompt_seconds += first - started


async def _ask(
    server: BenchServer, load: Load, tick: Callable[[], None]
) -> tuple[float, list[tuple[float, bytes]], str | None]:
    """One request: when it began, what came when, and why it failed, if it did.

    What came is only kept: reading it now would slow down the streams beside it.
    """
    begun = time.monotonic()
    kept: list[tuple[float, bytes]] = []
    failure = None
    try:
        async with (
            asyncio.timeout(load.timeout),
            aclosing(server.raw_stream(CHAT, _body(load))) as chunks,
        ):
            async for chunk in chunks:
                kept.append((time.monotonic(), chunk))
    except LLMError as error:
        failure = str(error)
    except TimeoutError:
        failure = _late(server, load)
    tick()
    return begun, kept, failure


def _prompt(load: Load) -> str:
    if load.prompt_tokens is None:
        return load.prompt
    return make_prompt(load.prompt_words or SAMPLE_WORDS, _SOURCE)


def _late(server: BenchServer, load: Load) -> str:
    return f"{server.base_url} gave no complete answer within {load.timeout:g} s."


def _body(load: Load) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": _prompt(load)}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": load.max_tokens,
        "stream_options": {"include_usage": True},
    }


def quantile(values: list[float], share: float) -> float | None:
    """The value below which `share` (0 to 1) of `values` lie, interpolated; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _both(seconds: list[float]) -> dict[str, float | None]:
    """Milliseconds: the median, and what 95 of 100 stay below."""
    return {
        name: None if (value := quantile(seconds, share)) is None else round(value * 1000, 2)
        for name, share in (("p50", 0.5), ("p95", 0.95))
    }


def _rounded(value: float | None, places: int) -> float | None:
    return None if value is None else round(value, places)
