"""Holds the conversations of a suite with a host's chat API, and judges the answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llm_provider.client.chat_api import ChatAPIClient
from llm_provider.errors import LLMError, MalformedAnswer
from llm_provider.http.transports import Verify
from llm_provider.http.url import redact
from llm_suite.answer import Answer, read_answer
from llm_suite.expectations import judge, late
from llm_suite.haystack import haystack
from llm_suite.result import ConversationResult, SuiteResult, Try, TurnResult
from llm_suite.safe_text import printable, shown
from llm_suite.suite import Conversation, Haystack, Suite, Turn

TIMEOUT = 300.0
"""Seconds within which an answer must be complete where a suite expects no other time."""
_SAMPLES = (100, 300)
"""Words of the two texts by which the tokens of a word are measured."""
_PLAUSIBLE = (0.5, 12.0)
"""Tokens of a word: fewer no tokenizer has, more not even one of single bytes."""


@dataclass(frozen=True)
class Host:
    """A host's chat API. `verify`: the certificate authorities of an https URL."""

    url: str
    key: str | None = None
    verify: Verify = True
    timeout: float = TIMEOUT


class Watcher:
    """Hears of a run as it goes; this one listens to nothing."""

    def begins(self, suite: Suite, model: str) -> None:
        """A suite begins."""

    def asks(self, conversation: Conversation, number: int) -> None:
        """A conversation begins, for the time `number`."""

    def answered(self, result: ConversationResult) -> None:
        """A conversation has ended, after all tries."""

    def ends(self, result: SuiteResult) -> None:
        """A suite has ended."""


class _StoppedError(Exception):
    """A conversation cannot go on; the text is the reason."""


async def run_suites(
    suites: list[Suite], host: Host, *, tries: int = 1, watcher: Watcher | None = None
) -> list[SuiteResult]:
    """Run suites against a host, one conversation after the other.

    A conversation that fails is held again until it passes, `tries` times at most; each try is in
    the result. Raises LLMError where the host is not ready.
    """
    limits = [turn.expect.get("seconds", 0) for each in suites for turn in _turns(each)]
    async with ChatAPIClient(
        model="default",
        base_url=host.url,
        api_key=host.key,
        # Beyond the limits of the answers, which the runner keeps itself.
        timeout=60 + max([host.timeout, *limits]),
        verify=host.verify,
    ) as client:
        ready = await client.look("/ready")
        runner = _Runner(client, host, ready, tries, watcher or Watcher())
        return [await runner.run(suite) for suite in suites]


def _turns(suite: Suite) -> list[Turn]:
    return [turn for conversation in suite.conversations for turn in conversation.turns]


class _Runner:
    def __init__(
        self,
        client: ChatAPIClient,
        host: Host,
        ready: Mapping[str, Any],
        tries: int,
        watcher: Watcher,
    ) -> None:
        self._client = client
        self._host = host
        self._model = printable(str(ready.get("model")))
        self._context = ready.get("context_size")
        self._tries = tries
        self._watcher = watcher
        self._tokens: tuple[float, float] | None = None

    async def run(self, suite: Suite) -> SuiteResult:
        """Hold all conversations of a suite."""
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        result = SuiteResult(suite.name, suite.title, redact(self._host.url), self._model, began)
        self._watcher.begins(suite, self._model)
        for conversation in suite.conversations:
            held = ConversationResult(conversation.name)
            while not held.tries or (not held.ok and len(held.tries) < self._tries):
                self._watcher.asks(conversation, len(held.tries) + 1)
                held.tries.append(await self._converse(conversation))
            result.conversations.append(held)
            self._watcher.answered(held)
        self._watcher.ends(result)
        return result

    async def _converse(self, conversation: Conversation) -> Try:
        """Take the turns until one fails: those after it would judge another conversation."""
        one = Try()
        messages: list[dict[str, Any]] = []
        if conversation.system is not None:
            messages.append({"role": "system", "content": conversation.system})
        answer: Answer | None = None
        try:
            for turn in conversation.turns:
                messages += await self._messages(turn, answer)
                taken = TurnResult(printable(messages[-1]["content"])[-200:])
                one.turns.append(taken)
                answer = await self._ask(conversation, turn, messages, taken)
                if answer is None or taken.failures:
                    break
                messages.append(answer.message())
        except _StoppedError as stop:
            one.error = str(stop)
        return one

    async def _ask(
        self,
        conversation: Conversation,
        turn: Turn,
        messages: list[dict[str, Any]],
        taken: TurnResult,
    ) -> Answer | None:
        """Send the messages and judge the answer; None where it was too late for one."""
        body = {**conversation.request, "messages": messages}
        if conversation.tools:
            body["tools"] = list(conversation.tools)
        limit = turn.expect.get("seconds")
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit or self._host.timeout):
                completion = await self._client.chat(body)
        except TimeoutError:
            taken.seconds = time.monotonic() - started
            if limit is None:
                raise _StoppedError(
                    f"no complete answer within {self._host.timeout:g} s: the request was stopped"
                ) from None
            taken.outcomes = [late(limit)]
            return None
        except LLMError as error:
            taken.seconds = time.monotonic() - started
            raise _StoppedError(_sentence(error)) from error
        taken.seconds = time.monotonic() - started
        try:
            answer = read_answer(completion, taken.seconds)
        except MalformedAnswer as error:
            raise _StoppedError(_sentence(error)) from error
        taken.answer = answer.describe()
        taken.prompt_tokens, taken.tokens = answer.prompt_tokens, answer.tokens
        taken.outcomes = judge(turn.expect, answer)
        return answer

    async def _messages(self, turn: Turn, before: Answer | None) -> list[dict[str, Any]]:
        """The messages that a turn adds to the conversation."""
        if turn.user is None:
            return _tool_messages(turn, before)
        text = turn.user
        if turn.haystack is not None:
            words = turn.haystack.words or await self._words(turn.haystack)
            text = f"{haystack(words, turn.haystack.needle, turn.haystack.position)}\n\n{turn.user}"
        return [{"role": "user", "content": text}]

    async def _words(self, wanted: Haystack) -> int:
        """How many words fill the share of the context, by the tokens that the host counts."""
        if not isinstance(self._context, int):
            raise _StoppedError(
                "the host does not tell its context size: use words in place of fill in haystack"
            )
        if self._tokens is None:
            self._tokens = await self._measure()
        of_word, of_rest = self._tokens
        return max(1, round((self._context * (wanted.fill or 0) - of_rest) / of_word))

    async def _measure(self) -> tuple[float, float]:
        """Tokens of a word of a haystack, and of all that stands around it."""
        counts = []
        for number, words in enumerate(_SAMPLES):
            # Another beginning every time: some engines count only what they have not in memory.
            text = f"{secrets.token_hex(4)} {haystack(words, seed=number + 1)}"
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
            try:
                async with asyncio.timeout(self._host.timeout):
                    answer = read_answer(await self._client.chat(body), 0)
            except (TimeoutError, LLMError) as error:
                reason = _sentence(error) or f"no answer within {self._host.timeout:g} s"
                raise _StoppedError(f"the tokens of a word were not measured: {reason}") from error
            counts.append((len(text.split()), answer.prompt_tokens))
        (few, less), (many, more) = counts
        of_word = ((more or 0) - (less or 0)) / (many - few)
        if not _PLAUSIBLE[0] <= of_word <= _PLAUSIBLE[1]:
            raise _StoppedError(
                f"the tokens of a word were not measured: the host counts {less} tokens for {few}"
                f" words and {more} for {many}. Use words in place of fill in haystack"
            )
        return of_word, max(0.0, (less or 0) - of_word * few)


def _tool_messages(turn: Turn, before: Answer | None) -> list[dict[str, Any]]:
    """The result of each call of the answer before."""
    calls = before.calls if before else ()
    if not calls:
        raise _StoppedError(
            "the answer before called no tool, so there is no call for tool_results"
        )
    for call in calls:
        if call.name not in turn.tool_results:
            raise _StoppedError(
                f"tool_results has no result of {shown(call.name)}, which the answer before called"
            )
    return [
        {"role": "tool", "tool_call_id": call.id, "content": turn.tool_results[call.name]}
        for call in calls
    ]


def _sentence(error: Exception) -> str:
    return printable(" ".join(str(error).split())).rstrip(".")
