"""What a run of suites found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from llm_suite.expectations import Outcome


@dataclass
class TurnResult:
    """One message and its answer. `answer` is its text, or its calls of tools, for people."""

    asked: str
    answer: str = ""
    seconds: float = 0.0
    prompt_tokens: int | None = None
    tokens: int | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        """The expectations that the answer does not meet."""
        return [outcome for outcome in self.outcomes if not outcome.ok]


@dataclass
class Try:
    """One run of a conversation. `error`: why there was no answer to judge; empty for none."""

    turns: list[TurnResult] = field(default_factory=list)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether all answers came and meet what was expected."""
        return not self.error and not any(turn.failures for turn in self.turns)

    @property
    def seconds(self) -> float:
        """The time of all answers."""
        return sum(turn.seconds for turn in self.turns)

    @property
    def problems(self) -> list[str]:
        """Why it failed, a line for each reason; with several turns, the turn's number before."""
        lines = [
            (f"turn {number}: " if number > 1 else "") + outcome.message
            for number, turn in enumerate(self.turns, 1)
            for outcome in turn.failures
        ]
        return [*lines, self.error] if self.error else lines


@dataclass
class ConversationResult:
    """A conversation: its tries, of which the last one counts."""

    name: str
    tries: list[Try] = field(default_factory=list)

    @property
    def last(self) -> Try:
        """The try that counts."""
        return self.tries[-1]

    @property
    def ok(self) -> bool:
        """Whether the last try passed."""
        return self.last.ok

    @property
    def seconds(self) -> float:
        """The time of all tries."""
        return sum(each.seconds for each in self.tries)


@dataclass
class SuiteResult:
    """A suite. `model` is what the host says that it serves."""

    name: str
    title: str
    url: str
    model: str
    began: str
    conversations: list[ConversationResult] = field(default_factory=list)

    @property
    def failed(self) -> list[ConversationResult]:
        """The conversations that failed."""
        return [each for each in self.conversations if not each.ok]

    @property
    def ok(self) -> bool:
        """Whether every conversation passed, and there was one."""
        return bool(self.conversations) and not self.failed

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON's types."""
        conversations = [
            {
                "name": each.name,
                "ok": each.ok,
                "problems": each.last.problems,
                "tries": [asdict(one) for one in each.tries],
            }
            for each in self.conversations
        ]
        return {
            "name": self.name,
            "title": self.title,
            "url": self.url,
            "model": self.model,
            "began": self.began,
            "ok": self.ok,
            "conversations": conversations,
        }
