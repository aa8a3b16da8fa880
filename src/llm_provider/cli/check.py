"""Verifies that a host answers requests as it should, seen from a client.

Each check has a name that stays, says what it saw and what it wanted, and fails on a host that
it could not look at.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

from llm_provider.cli.check_failure import Failed
from llm_provider.cli.task_checks import (
    DOCUMENTS,
    EMBEDDING_TEXTS,
    QUERY,
    check_ranking,
    check_vectors,
)
from llm_provider.cli.timed_answer import TimedAnswer
from llm_provider.client.chat_api import ChatAPIClient
from llm_provider.errors import (
    EngineLoadingError,
    EngineRefusedError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)
from llm_provider.http.transports import Verify
from llm_provider.http.url import redact
from llm_provider.providers.chat_format import choice_of, reasoning_of, text_of
from llm_provider.providers.routes import CHAT, EMBEDDINGS, RERANK

DEFAULT_PROMPT = "What is the capital of France? Answer in one sentence."
MAX_TOKENS = 64
_POLL_SECONDS = 0.1
_NOT_TRIED = "not tried: "
# llama-server rounds its context up to a multiple of this; a conversation may use what was asked.
_CONTEXT_STEP = 256


@dataclass(frozen=True)
class Check:
    """One check's outcome: what was seen, and what was wanted."""

    name: str
    ok: bool
    seen: str
    wanted: str

    @property
    def tried(self) -> bool:
        """Whether there was anything to look at."""
        return self.ok or not self.seen.startswith(_NOT_TRIED)


@dataclass
class Report:
    """What all checks found. `answer` is the chat answer's text, without white space around it; of
    a model that does not chat, what it returned in a few words.

    `context_size` (tokens of one conversation), `parallel` and `gpu_share` are as /ready tells; no
    check judges `gpu_share`, since only the host's plan tells how many layers belong on a GPU.
    `ttft_seconds` and `tokens_per_second` are measured here, at the client, on the stream.
    """

    url: str
    reachable: bool = True
    provider: str | None = None
    model: str | None = None
    context_size: int | None = None
    parallel: int | None = None
    gpu_share: float | None = None
    answer: str | None = None
    ttft_seconds: float | None = None
    tokens_per_second: float | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON's types; `reachable` is in the exit status."""
        report = {"ok": self.ok, **asdict(self)}
        del report["reachable"]
        return report


@dataclass(frozen=True)
class Wanted:
    """What the caller expects; None accepts whatever the host serves."""

    provider: str | None = None
    model: str | None = None
    task: str = "chat"
    dimensions: int | None = None
    """How many numbers the vector of an embedding model has."""
    prompt: str = DEFAULT_PROMPT
    answer: str | None = None
    max_tokens: int = MAX_TOKENS
    context_size: int | None = None
    parallel: int | None = None
    seconds: float = 120.0
    """How long to wait for readiness, and for each answer."""


class Watcher:
    """Hears of the checks as they go; this one listens to nothing."""

    def begins(self, name: str) -> None:
        """The check of that name begins."""

    def waits(self, reason: str) -> None:
        """It waits for something, and asks again."""

    def ends(self, outcome: Check) -> None:
        """It has ended."""


async def check(
    url: str,
    key: str | None,
    wanted: Wanted,
    *,
    watcher: Watcher | None = None,
    verify: Verify = True,
) -> Report:
    """Run every check against the chat API at `url`; `watcher` hears of each.

    `verify`: the certificate authorities of an https URL, as `LLMProvider` has it. Raises
    ConfigurationError for a URL, key or file that cannot be used.
    """
    checker = _Checker(url, key, wanted, watcher or Watcher(), verify)
    await checker.run()
    return checker.report


class _Checker:
    def __init__(
        self, url: str, key: str | None, wanted: Wanted, watcher: Watcher, verify: Verify
    ) -> None:
        self.wanted = wanted
        self.report = Report(redact(url))
        self._watcher = watcher
        self._ready = False
        self._names: list[str | None] = []

        def board(api_key: str | None) -> ChatAPIClient:
            return ChatAPIClient(
                model=wanted.model or "default",
                base_url=url,
                api_key=api_key,
                timeout=wanted.seconds,
                verify=verify,
            )

        self._board = board(key)
        self._strangers = {
            "without a key": board(None),
            "with a wrong key": board(secrets.token_hex()),
        }

    async def run(self) -> None:
        steps = [
            ("health", self._health, "GET /health answered 200"),
            ("key", self._key, "401 without a valid key"),
            ("ready", self._is_ready, self._wanted_ready()),
            ("models", self._models, f"{self.wanted.model or 'the model of /ready'} listed"),
            ("context", self._context, self._wanted_context()),
            *self._task_steps(),
            ("identity", self._identity, "answers that name the served model"),
        ]
        try:
            for name, step, wanted in steps:
                self._watcher.begins(name)
                try:
                    outcome = Check(name, True, await step(), wanted)
                except (Failed, LLMError) as error:
                    outcome = Check(name, False, str(error), wanted)
                self.report.checks.append(outcome)
                self._watcher.ends(outcome)
        finally:
            for board in (self._board, *self._strangers.values()):
                await board.close()

    def _task_steps(self) -> list[tuple[str, Callable[[], Awaitable[str]], str]]:
        """The checks of what the model is for."""
        if self.wanted.task == "embedding":
            size = self.wanted.dimensions or "some"
            return [("vectors", self._embedding, f"vectors of {size} numbers, one for each text")]
        if self.wanted.task == "rerank":
            return [("ranking", self._rerank, "the document that answers the query first")]
        text = "some text" if self.wanted.answer is None else repr(self.wanted.answer.strip())
        return [
            ("chat", self._chat, f"{text}, with a finish_reason"),
            ("stream", self._stream, f"{text}, in more than one chunk, properly ended"),
        ]

    def _wanted_ready(self) -> str:
        parts = [
            f"{name} {value}"
            for name, value in (("provider", self.wanted.provider), ("model", self.wanted.model))
            if value
        ]
        return ", ".join(["ready", *parts]) + f" within {self.wanted.seconds:g} s"

    def _wanted_context(self) -> str:
        size, parallel = self.wanted.context_size, self.wanted.parallel
        return (
            f"{size or 'a number of'} tokens for a conversation, "
            f"{parallel or 'a number of'} conversations at once"
        )

    def _need(self, condition: bool, reason: str) -> None:
        if not condition:
            raise Failed(f"{_NOT_TRIED}{reason}")

    async def _health(self) -> str:
        try:
            answer = await self._board.look("/health")
        except EngineUnreachableError:
            self.report.reachable = False
            raise
        return f"200, version {answer.get('version')}"

    async def _key(self) -> str:
        self._need(self.report.reachable, "the host is not reachable")
        for whose, stranger in self._strangers.items():
            status = 200
            try:
                await stranger.look("/v1/models")
            except EngineRefusedError as error:
                status = error.status
            if status != 401:
                raise Failed(f"a request {whose} was answered {status}, not 401")
        return "401 without a key and with a wrong one"

    async def _is_ready(self) -> str:
        self._need(self.report.reachable, "the host is not reachable")
        deadline = time.monotonic() + self.wanted.seconds
        while True:
            try:
                ready = await self._board.look("/ready")
                break
            except (
                EngineLoadingError,
                EngineUnreachableError,
                StreamInterruptedError,
                EngineTimeoutError,
            ) as error:
                if time.monotonic() >= deadline:
                    raise Failed(f"not ready after {self.wanted.seconds:g} s: {error}") from error
                self._watcher.waits(str(error))
            await asyncio.sleep(_POLL_SECONDS)
        if ready.get("ready") is not True:
            raise Failed(f"/ready answered 200, but ready is {ready.get('ready')!r}")
        self._ready = True
        report = self.report
        report.provider, report.model = ready.get("provider"), ready.get("model")
        report.context_size, report.parallel = ready.get("context_size"), ready.get("parallel")
        report.gpu_share = ready.get("gpu_share")
        for what, seen, wanted in (
            ("provider", report.provider, self.wanted.provider),
            ("model", report.model, self.wanted.model),
        ):
            if wanted is not None and seen != wanted:
                raise Failed(f"the {what} is {seen}, not {wanted}")
        return f"provider {report.provider}, model {report.model}"

    async def _models(self) -> str:
        self._need(self.report.reachable, "the host is not reachable")
        names = await self._board.models()
        listed = ", ".join(names) or "none"
        wanted = self.wanted.model or self.report.model
        self._need(wanted is not None, f"no model is known to look for; listed: {listed}")
        if wanted not in names:
            raise Failed(f"the model {wanted} is not among those listed: {listed}")
        return listed

    async def _context(self) -> str:
        self._need(self._ready, "the engine is not ready")
        size, parallel = self.report.context_size, self.report.parallel
        for what, value in (("context size", size), ("number of slots", parallel)):
            if not isinstance(value, int):
                raise Failed(f"/ready has no {what}: it is {value!r}")
        seen = f"{size} tokens for a conversation, {parallel} conversations at once"
        wanted = self.wanted.context_size
        if wanted is not None and not wanted <= (size or 0) < wanted + _CONTEXT_STEP:
            raise Failed(f"{seen}; the context is not {wanted}")
        if self.wanted.parallel not in (None, parallel):
            raise Failed(f"{seen}; the slots are not {self.wanted.parallel}")
        return seen

    def _body(self) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": self.wanted.prompt}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": self.wanted.max_tokens,
        }

    async def _chat(self) -> str:
        self._need(self._ready, "the engine is not ready")
        answer = await self._board.chat(self._body())
        choice = choice_of(answer)
        self._names.append(answer.get("model"))
        text = text_of(choice.get("message"))
        self.report.answer = text.strip() or None
        self._compare(text, reasoning_of(choice.get("message")))
        if not choice.get("finish_reason"):
            raise Failed(f"{text.strip()!r}, without a finish_reason")
        return f"{text.strip()!r}, finish_reason {choice['finish_reason']}"

    async def _stream(self) -> str:
        self._need(self._ready, "the engine is not ready")
        answer = TimedAnswer()
        body = self._body() | {"stream_options": {"include_usage": True}}
        started = time.monotonic()
        async with aclosing(self._board.raw_stream(CHAT, body)) as chunks:
            async for chunk in chunks:
                answer.feed(chunk, time.monotonic())
        self._names.append(answer.model)
        # Not with the chat answer: even at temperature 0 an engine that batches its work
        # differently need not give the same one twice.
        self._compare(answer.text, answer.reasoning)
        count = len(answer.texts)
        if count < 2:
            raise Failed("the whole answer came in one chunk; more than one is wanted")
        if not answer.finish_reason:
            raise Failed(f"{count} chunks, without a finish_reason")
        self.report.ttft_seconds = round(answer.times[0] - started, 4)
        self.report.tokens_per_second = pace = answer.tokens_per_second
        return (
            f"{count} chunks, finish_reason {answer.finish_reason}, [DONE]; "
            f"first after {self.report.ttft_seconds:.3f} s, "
            + ("all at once" if pace is None else f"{pace:g} tokens/s")
        )

    async def _embedding(self) -> str:
        self._need(self._ready, "the engine is not ready")
        answer = (await self._board.send(EMBEDDINGS, {"input": list(EMBEDDING_TEXTS)})).data
        self._names.append(answer.get("model"))
        self.report.answer = seen = check_vectors(answer, self.wanted.dimensions)
        return seen

    async def _rerank(self) -> str:
        self._need(self._ready, "the engine is not ready")
        body = {"query": QUERY, "documents": list(DOCUMENTS)}
        answer = (await self._board.send(RERANK, body)).data
        self._names.append(answer.get("model"))
        self.report.answer = seen = check_ranking(answer)
        return seen

    def _compare(self, text: str, reasoning: str) -> None:
        # White space around it does not count: a model whose first token begins a word comes out
        # with a leading space, which engines strip or keep, each its own way.
        wanted = self.wanted.answer
        if not text.strip():
            if not reasoning:
                raise Failed("an empty answer")
            raise Failed(
                f"no text, only {len(reasoning)} characters of reasoning: the model reasons, and "
                f"--max-tokens {self.wanted.max_tokens} did not reach to its answer"
            )
        if wanted is not None and text.strip() != wanted.strip():
            raise Failed(f"the answer was {text.strip()!r}, not {wanted.strip()!r}")

    async def _identity(self) -> str:
        self._need(bool(self._names), "no answer came")
        served = self.report.model
        for name in self._names:
            # Ollama's full name of a model without a tag.
            if name not in (served, f"{served}:latest"):
                raise Failed(f"an answer calls its model {name!r}; served is {served!r}")
        return f"model {' and '.join(sorted({str(name) for name in self._names}))}"
