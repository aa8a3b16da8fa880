"""What can go wrong between a caller and an engine, by what the caller can do about it.

Each error's text is a sentence that names the engine, its address and what was seen.
"""

from __future__ import annotations

from typing import Any


class LLMError(Exception):
    """Any failure of this module; catch this to catch all of them."""


class ConfigurationError(LLMError, ValueError):
    """What was asked for cannot work, whatever the engine's state: fix the setting it names."""


class NotReachable(LLMError):
    """No connection could be made, so the request cannot have run: it is safe to send again."""


class Loading(LLMError):
    """The engine is on its way but has run nothing yet: it is safe to send again, later."""


class Rejected(LLMError):
    """The engine answered, and refused.

    `status` is the HTTP status, `words` the engine's own message, and `error` its error object
    (OpenAI's keys: message, type, param, code; those the engine gave).
    """

    def __init__(self, message: str, *, status: int, words: str, error: dict[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.words = words
        self.error = error


class MalformedAnswer(LLMError):
    """The engine answered 200 with something that is not an answer."""


class Interrupted(LLMError):
    """The connection ended before the answer did. The request may have run: do not resend it.

    `received` holds the raw bytes of a streamed answer that had arrived (empty if none had).
    """

    def __init__(self, message: str, *, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class TimedOut(LLMError):
    """The engine was silent for longer than allowed. The request may have run.

    `received` holds the raw bytes of a streamed answer that had arrived (empty if none had).
    """

    def __init__(self, message: str, *, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received
