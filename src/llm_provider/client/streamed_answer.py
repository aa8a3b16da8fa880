"""A streamed chat answer, put together as it comes."""

from __future__ import annotations

from typing import Any

from llm_provider.providers.chat_events import ChatEvents
from llm_provider.providers.chat_format import choice_of, reasoning_of, text_of


class StreamedAnswer:
    """A streamed chat answer, put together as it comes.

    `texts` and `reasoning` are its pieces, `times` when each piece of either kind came (in the
    seconds of whichever clock the caller uses). `model` is the name that the answer itself gives.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.times: list[float] = []
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.usage: dict[str, Any] | None = None
        self._reader = ChatEvents()

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return "".join(self.texts)

    @property
    def tokens(self) -> int:
        """Tokens of the answer: as the server counted them, else one for each piece."""
        counted = (self.usage or {}).get("completion_tokens")
        return counted if isinstance(counted, int) else len(self.times)

    @property
    def tokens_per_second(self) -> float | None:
        """The pace after the first piece; None where all came at once."""
        return rate(self.tokens, self.times)

    def feed(self, chunk: bytes, arrived: float) -> None:
        """Take in raw bytes. What comes in one piece came at one time, whatever it holds.

        Raises MalformedAnswer, and StreamInterruptedError where the stream tells of an error.
        """
        for event in self._reader.feed(chunk):
            self.take(event, arrived)

    def take(self, event: dict[str, Any], arrived: float) -> str:
        """Take in one event; returns the text that it brought. Raises MalformedAnswer."""
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        if isinstance(model := event.get("model"), str):
            self.model = model
        if not event.get("choices"):
            return ""
        choice = choice_of(event)
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        text, thought = text_of(choice.get("delta")), reasoning_of(choice.get("delta"))
        for piece, pieces in ((thought, self.reasoning), (text, self.texts)):
            if piece:
                pieces.append(piece)
                self.times.append(arrived)
        return text


def rate(tokens: int, times: list[float]) -> float | None:
    """Tokens per second after the first that came; None when all came at once.

    `times` is when each piece came (seconds); `tokens` is how many they hold in all.
    """
    later = sum(time > times[0] for time in times)
    if not later:
        return None
    return round(tokens * later / len(times) / (times[-1] - times[0]), 1)
