"""A streamed answer, and when its pieces arrived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.client.accumulator import ChatCompletionAccumulator
from llm_provider.providers.chat_events import ChatEvents


class TimedAnswer(ChatCompletionAccumulator):
    """A streamed chat answer with its pace.

    `times` is when each piece of text or of reasoning arrived (in the seconds of whichever clock
    the caller uses).
    """

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._reader = ChatEvents()

    @property
    def tokens(self) -> int:
        """Tokens of the answer: as the server counted them, else one for each piece."""
        counted = self.usage.get("completion_tokens") if self.usage else None
        return counted if isinstance(counted, int) else len(self.times)

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, as the server counted them; None where it does not tell."""
        counted = self.usage.get("prompt_tokens") if self.usage else None
        return counted if isinstance(counted, int) else None

    @property
    def prompt_tokens_read(self) -> int | None:
        """Those of them that were not in the server's cache."""
        details = self.usage.get("prompt_tokens_details") if self.usage else None
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        if self.prompt_tokens is None or not isinstance(cached, int):
            return self.prompt_tokens
        return max(0, self.prompt_tokens - cached)

    @property
    def tokens_per_second(self) -> float | None:
        """The pace after the first piece; None where all came at once."""
        return rate(self.tokens, self.times)

    def feed(self, chunk: bytes, arrived: float) -> None:
        """Add raw bytes. What comes in one piece came at one time, whatever it holds.

        Raises MalformedAnswer, and StreamInterruptedError where the stream tells of an error.
        """
        for event in self._reader.feed(chunk):
            self.add_at(event, arrived)

    def add_at(self, event: Mapping[str, Any], arrived: float) -> str:
        """Add one event; returns the text that it added. Raises MalformedAnswer."""
        before = len(self.texts) + len(self.thoughts)
        text = self.add(event)
        self.times += [arrived] * (len(self.texts) + len(self.thoughts) - before)
        return text


def rate(tokens: int, times: list[float]) -> float | None:
    """Tokens per second after the first that came; None when all came at once.

    `times` is when each piece came (seconds); `tokens` is how many they hold in all.
    """
    later = sum(time > times[0] for time in times)
    if not later:
        return None
    return round(tokens * later / len(times) / (times[-1] - times[0]), 2)
