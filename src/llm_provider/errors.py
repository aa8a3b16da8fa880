"""What can go wrong between a caller and an engine, by what the caller can do about it.

    LLMError
    ├── ConfigurationError       a setting cannot work: correct it
    ├── EngineUnreachableError   no connection: nothing ran, send it again
    ├── EngineLoadingError       nothing ran yet: send it again, later
    ├── Unsupported              this engine cannot do what a field asks: leave it out, or swap
    ├── EngineRefusedError       the engine refused, in its own words
    │   └── ContextFullError     for lack of room beside others: send it again, alone
    ├── MalformedAnswer          the engine answered with what is no answer
    ├── StreamInterruptedError   the answer broke off; what had arrived is in it
    └── EngineTimeoutError       the engine fell silent; what had arrived is in it

Each error's text is a sentence that names the engine, its address and what was seen.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from llm_provider.http.blocks import read_block, split_blocks


class LLMError(Exception):
    """Any failure of this module; catch this to catch all of them."""


class ConfigurationError(LLMError, ValueError):
    """What was asked for cannot work, whatever the engine's state: fix the setting it names."""


class EngineUnreachableError(LLMError):
    """No connection could be made, so the request cannot have run: it is safe to send again."""


class EngineLoadingError(LLMError):
    """The engine is on its way but has run nothing yet: it is safe to send again, later."""


class Unsupported(LLMError):
    """The engine cannot do what was asked, and would have ignored it without a word.

    `param` is the field of the request that asks for it, or a member of the field
    (`text.format.type`); None where the whole route is missing.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class EngineRefusedError(LLMError):
    """The engine answered, and refused.

    `status` is the HTTP status, `words` the engine's own message, and `error` its error object
    (OpenAI's keys: message, type, param, code; those the engine gave).
    """

    def __init__(self, message: str, *, status: int, words: str, error: dict[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.words = words
        self.error = error


class ContextFullError(EngineRefusedError):
    """The engine gave up on requests that together outgrew its memory: alone it may fit."""


class MalformedAnswer(LLMError):
    """The engine answered 200 with something that is not an answer."""


class _Partial(LLMError):
    """A streamed answer that did not come to its end.

    `received` holds the raw bytes of it that had arrived (empty where none had, or where the
    caller read them itself, from `raw_stream`).
    """

    def __init__(self, message: str, *, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received

    @property
    def text(self) -> str:
        """The text of the answer that had arrived."""
        return text_in(self.received)


class StreamInterruptedError(_Partial):
    """The connection ended before the answer did. The request may have run: do not resend it."""


class EngineTimeoutError(_Partial):
    """The engine was silent for longer than allowed. The request may have run."""


def text_in(received: bytes) -> str:
    """Return the text in the whole events of a streamed chat answer, whatever else it holds."""
    pieces = []
    for block in split_blocks(received):
        data = read_block(block)
        choices = data.get("choices") if isinstance(data, dict) else None
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            delta = choices[0].get("delta")
            content = delta.get("content") if isinstance(delta, dict) else None
            if isinstance(content, str):
                pieces.append(content)
    return "".join(pieces)


RENAMED = {
    "Crowded": ContextFullError,
    "Interrupted": StreamInterruptedError,
    "Loading": EngineLoadingError,
    "NotReachable": EngineUnreachableError,
    "Rejected": EngineRefusedError,
    "TimedOut": EngineTimeoutError,
}
"""Names of version 0.1, which programs may import still."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> type[LLMError]:
        if name not in RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(
            f"{name} is deprecated; use {RENAMED[name].__name__}.",
            DeprecationWarning,
            stacklevel=2,
        )
        return RENAMED[name]
