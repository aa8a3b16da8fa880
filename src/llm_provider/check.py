"""The proof that a host answers chat requests as it should, seen from a client.

Each check has a name that stays, says what it saw and what it wanted, and fails on a host that
it could not look at.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

from llm_provider.base import CHAT, Capacity, LLMProvider, choice_of, text_of
from llm_provider.errors import (
    Interrupted,
    LLMError,
    Loading,
    NotReachable,
    Rejected,
    TimedOut,
)
from llm_provider.sse import EventParser

DEFAULT_PROMPT = "What is the capital of France? Answer in one sentence."
MAX_TOKENS = 64
_POLL_SECONDS = 0.5


class Board(LLMProvider):
    """A host's chat API, as a client sees it: it speaks as engines do, so it is used as one."""

    name = "the chat API"

    async def look(self, path: str) -> dict[str, Any]:
        """Return what GET `path` answers with status 200; raises LLMError for anything else."""
        return await self._get(path)

    async def health(self) -> None:
        await self.look("/health")

    async def ready(self) -> None:
        await self.look("/ready")

    async def capacity(self) -> Capacity:
        report = await self.look("/ready")
        return Capacity(report.get("context_size"), report.get("parallel"), report.get("gpu_share"))

    def _refusal(self, path: str, status: int, words: str, error: dict[str, Any]) -> LLMError:
        if error.get("code") == "engine_not_ready":
            return Loading(f"{self._who} is not ready: {words}")
        return super()._refusal(path, status, words, error)


@dataclass(frozen=True)
class Check:
    """One check's outcome: what was seen, and what was wanted."""

    name: str
    ok: bool
    seen: str
    wanted: str


@dataclass
class Report:
    """What all checks found. `answer` is the chat answer's text, without white space around it.

    `ttft_seconds` and `tokens_per_second` are measured here, at the client, on the stream.
    """

    url: str
    reachable: bool = True
    provider: str | None = None
    model: str | None = None
    answer: str | None = None
    ttft_seconds: float | None = None
    tokens_per_second: float | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON's types; `reachable` is told by the exit status."""
        report = {"ok": self.ok, **asdict(self)}
        del report["reachable"]
        return report


@dataclass(frozen=True)
class Wanted:
    """What the caller expects; None accepts whatever the host serves."""

    provider: str | None = None
    model: str | None = None
    prompt: str = DEFAULT_PROMPT
    answer: str | None = None
    seconds: float = 120.0
    """How long to wait for readiness, and for each answer."""


class Failed(Exception):
    """A check saw something other than what it wanted."""


async def check(
    url: str,
    key: str | None,
    wanted: Wanted,
    *,
    tell: Callable[[Check], None] | None = None,
) -> Report:
    """Run every check against the chat API at `url`; `tell` hears of each as it ends.

    Raises ConfigurationError for a URL or key that cannot be used.
    """
    checker = _Checker(url, key, wanted)
    await checker.run(tell)
    return checker.report


class _Checker:
    def __init__(
        self,
        url: str,
        key: str | None,
        wanted: Wanted,
    ) -> None:
        self.wanted = wanted
        self.report = Report(url)
        self._ready = False

        def board(api_key: str | None) -> Board:
            return Board(
                model=wanted.model or "default",
                base_url=url,
                api_key=api_key,
                timeout=wanted.seconds,
            )

        self._board = board(key)
        self._strangers = {
            "without a key": board(None),
            "with a wrong key": board(secrets.token_hex()),
        }

    async def run(self, tell: Callable[[Check], None] | None) -> None:
        model = f"the model {self.wanted.model}" if self.wanted.model else "one model"
        text = "some text" if self.wanted.answer is None else repr(self.wanted.answer.strip())
        steps = (
            ("health", self._health, "GET /health answered 200"),
            ("key", self._key, "401 without a valid key"),
            ("ready", self._is_ready, self._wanted_ready()),
            ("models", self._models, f"{model} served"),
            ("chat", self._chat, f"{text}, with a finish_reason"),
            ("stream", self._stream, "an answer in more than one chunk, properly ended"),
        )
        try:
            for name, step, wanted in steps:
                try:
                    outcome = Check(name, True, await step(), wanted)
                except (Failed, LLMError) as error:
                    outcome = Check(name, False, str(error), wanted)
                self.report.checks.append(outcome)
                if tell is not None:
                    tell(outcome)
        finally:
            for board in (self._board, *self._strangers.values()):
                await board.close()

    def _wanted_ready(self) -> str:
        parts = [
            f"{name} {value}"
            for name, value in (("provider", self.wanted.provider), ("model", self.wanted.model))
            if value
        ]
        return ", ".join(["ready", *parts]) + f" within {self.wanted.seconds:g} s"

    def _need(self, condition: bool, reason: str) -> None:
        if not condition:
            raise Failed(f"not tried: {reason}")

    async def _health(self) -> str:
        try:
            answer = await self._board.look("/health")
        except NotReachable:
            self.report.reachable = False
            raise
        return f"200, version {answer.get('version')}"

    async def _key(self) -> str:
        self._need(self.report.reachable, "the host is not reachable")
        for whose, stranger in self._strangers.items():
            status = 200
            try:
                await stranger.look("/v1/models")
            except Rejected as error:
                status = error.status
            if status != 401:
                raise Failed(f"a request {whose} was answered {status}, not 401")
        return "401 without a key and with a wrong one"

    async def _is_ready(self) -> str:
        self._need(self.report.reachable, "the host is not reachable")
        deadline = time.monotonic() + self.wanted.seconds
        while True:
            try:
                report = await self._board.look("/ready")
                break
            except (Loading, NotReachable, Interrupted, TimedOut) as error:
                if time.monotonic() >= deadline:
                    raise Failed(f"not ready after {self.wanted.seconds:g} s: {error}") from error
            await asyncio.sleep(_POLL_SECONDS)
        if report.get("ready") is not True:
            raise Failed(f"/ready answered 200, but ready is {report.get('ready')!r}")
        self._ready = True
        self.report.provider = provider = report.get("provider")
        self.report.model = model = report.get("model")
        for what, seen, wanted in (
            ("provider", provider, self.wanted.provider),
            ("model", model, self.wanted.model),
        ):
            if wanted is not None and seen != wanted:
                raise Failed(f"the {what} is {seen}, not {wanted}")
        return (
            f"provider {provider}, model {model}, "
            f"context {report.get('context_size')}, {report.get('parallel')} in parallel"
        )

    async def _models(self) -> str:
        self._need(self.report.reachable, "the host is not reachable")
        names = await self._board.models()
        listed = ", ".join(names) or "none"
        if self.wanted.model is not None:
            if self.wanted.model not in names:
                raise Failed(f"the model {self.wanted.model} is not among those served: {listed}")
        elif len(names) != 1:
            raise Failed(f"{len(names)} models are served, not one: {listed}")
        return listed

    def _body(self) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": self.wanted.prompt}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": MAX_TOKENS,
        }

    async def _chat(self) -> str:
        self._need(self._ready, "the engine is not ready")
        choice = choice_of(await self._board.chat(self._body()))
        text = text_of(choice.get("message"))
        self.report.answer = text.strip() or None
        self._compare(text, self.wanted.answer)
        if not choice.get("finish_reason"):
            raise Failed(f"{text.strip()!r}, without a finish_reason")
        return f"{text.strip()!r}, finish_reason {choice['finish_reason']}"

    async def _stream(self) -> str:
        self._need(self._ready, "the engine is not ready")
        texts: list[str] = []
        times: list[float] = []
        finish_reason = None
        tokens = None
        body = self._body() | {"stream_options": {"include_usage": True}}
        started = time.monotonic()

        parser = EventParser()
        async with aclosing(self._board.raw_stream(CHAT, body)) as stream:
            async for chunk in stream:
                # What comes in one piece came at one time, however many events it holds.
                arrived = time.monotonic()
                for event in parser.objects(chunk):
                    if isinstance(usage := event.get("usage"), dict):
                        tokens = usage.get("completion_tokens")
                    if not event.get("choices"):
                        continue
                    choice = choice_of(event)
                    finish_reason = choice.get("finish_reason") or finish_reason
                    if text := text_of(choice.get("delta")):
                        texts.append(text)
                        times.append(arrived)
        answer = "".join(texts)
        # Not with the chat answer: even at temperature 0 an engine that batches its work
        # differently need not give the same one twice.
        self._compare(answer, self.wanted.answer)
        if len(texts) < 2:
            raise Failed("the whole answer came in one chunk; more than one is wanted")
        if not finish_reason:
            raise Failed(f"{len(texts)} chunks, without a finish_reason")
        self.report.ttft_seconds = round(times[0] - started, 4)
        rate = _rate(tokens if isinstance(tokens, int) else len(texts), times)
        self.report.tokens_per_second = rate
        pace = "all at once" if rate is None else f"{rate:g} tokens/s"
        return (
            f"{len(texts)} chunks, finish_reason {finish_reason}, [DONE]; "
            f"first after {self.report.ttft_seconds:.3f} s, {pace}"
        )

    def _compare(self, text: str, wanted: str | None) -> None:
        # White space around it does not count: a model whose first token begins a word comes out
        # with a leading space, which engines strip or keep, each its own way.
        if not text.strip():
            raise Failed("an empty answer")
        if wanted is not None and text.strip() != wanted.strip():
            raise Failed(f"the answer was {text.strip()!r}, not {wanted.strip()!r}")


def _rate(tokens: int, times: list[float]) -> float | None:
    """Tokens per second after the first that came; None when all came at once.

    `times` is when each piece of text came (seconds); `tokens` is how many they hold in all.
    """
    later = sum(time > times[0] for time in times)
    if not later:
        return None
    return round(tokens * later / len(times) / (times[-1] - times[0]), 1)
