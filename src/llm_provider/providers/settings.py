"""The settings of an engine, read from the environment.

LLM_PROVIDER, HARDWARE, LLM_BASE_URL, LLM_MODEL, LLM_API_KEY, LLM_API_KEY_FILE, LLM_TIMEOUT; and for
the chat API: LLM_TASK, CHAT_API_STRICT, CTX_SIZE, PARALLEL, LLM_HOLD.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

from llm_provider import ENGINE_PORT
from llm_provider.errors import ConfigurationError

DEFAULT_BASE_URL = f"http://127.0.0.1:{ENGINE_PORT}"
"""Where a host of this project publishes its engine, whichever it is, to itself alone."""
DEFAULT_TIMEOUT = 600.0
"""Seconds of silence allowed: a long prompt on a small board takes minutes to the first token."""


class Task(enum.Enum):
    """What an engine was started for."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class EngineSettings:
    """What the variables of `environ` say of an engine.

    A variable is read when its property is: what a caller gives instead is not looked at. A
    property raises ConfigurationError, which names the variable, where its value cannot work.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @property
    def provider(self) -> str | None:
        """The engine's name; None where the board decides."""
        return self._environ.get("LLM_PROVIDER") or None

    @property
    def hardware(self) -> str | None:
        """The kind of board; None where it is to be detected."""
        return self._environ.get("HARDWARE") or None

    @property
    def base_url(self) -> str:
        """The engine's address."""
        return self._environ.get("LLM_BASE_URL") or DEFAULT_BASE_URL

    @property
    def model(self) -> str:
        """The model's name; empty where none is named."""
        return self._environ.get("LLM_MODEL", "")

    @property
    def api_key(self) -> str | None:
        """The engine's key: of LLM_API_KEY, else the first word of the file LLM_API_KEY_FILE."""
        if key := self._environ.get("LLM_API_KEY"):
            return key
        path = self._environ.get("LLM_API_KEY_FILE")
        if not path:
            return None
        try:
            words = Path(path).read_text().split()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"LLM_API_KEY_FILE cannot be read: {error}.") from error
        if not words:
            raise ConfigurationError(f"LLM_API_KEY_FILE names {path}, which holds no key.")
        return words[0]

    @property
    def timeout(self) -> float:
        """Seconds of silence allowed."""
        return read_number(self._environ, "LLM_TIMEOUT", DEFAULT_TIMEOUT)

    @property
    def task(self) -> Task:
        """What the engine was started for."""
        text = self._environ.get("LLM_TASK") or Task.CHAT.value
        try:
            return Task(text)
        except ValueError:
            raise ConfigurationError(
                f"LLM_TASK is {text!r}; known are: {', '.join(task.value for task in Task)}."
            ) from None

    @property
    def strict(self) -> bool:
        """Whether parameters that the engine would ignore are refused, also where it is no harm."""
        text = self._environ.get("CHAT_API_STRICT") or "0"
        if text not in ("0", "1"):
            raise ConfigurationError(f"CHAT_API_STRICT is {text!r}; it must be 0 or 1.")
        return text == "1"

    @property
    def context_size(self) -> int | None:
        """Tokens of one conversation, as was asked for; None where it is not known."""
        return read_count(self._environ, "CTX_SIZE")

    @property
    def parallel(self) -> int:
        """Requests that the engine runs at once."""
        return read_count(self._environ, "PARALLEL") or 1

    @property
    def hold_seconds(self) -> float:
        """Seconds that requests are to be held for, at most; 0 where they are not to be held."""
        if self._environ.get("LLM_HOLD") == "0":
            return 0.0
        return read_number(self._environ, "LLM_HOLD", 0)

    def check_numbers(self) -> None:
        """Raise ConfigurationError where one of the chat API's settings cannot work."""
        _ = self.task
        _ = self.strict
        read_count(self._environ, "PARALLEL")
        read_count(self._environ, "CTX_SIZE")
        _ = self.hold_seconds


def read_number(environ: Mapping[str, str], name: str, default: float) -> float:
    """Return the number above 0 that `environ` gives for `name`, or `default` where none is set.

    Raises ConfigurationError for anything else.
    """
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is {text!r}; a number above 0 is needed.")
    return value


def read_count(environ: Mapping[str, str], name: str) -> int | None:
    """Return the whole number above 0 that `environ` gives for `name`, or None where none is set.

    Raises ConfigurationError for anything else.
    """
    text = environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ConfigurationError(f"{name} is {text!r}; a whole number above 0 is needed.")
    return int(text)
