"""Which engine the chat API stands before, while it runs: a file that is followed.

The file holds NAME=VALUE lines which override the environment's: LLM_PROVIDER, LLM_BASE_URL,
LLM_MODEL, LLM_API_KEY_FILE, CTX_SIZE, PARALLEL; LLM_HOLD=SECONDS holds requests, for that long or
LLM_HOLD_SECONDS, whichever is more, and no longer than the process that asked for it lives (see
`hold`). It is replaced whole (written beside, then renamed), and a process that starts anew reads
the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from llm_provider.errors import ConfigurationError
from llm_provider.files import Watched
from llm_provider.gate import Gate
from llm_provider.hold import Holder
from llm_provider.selection import count, get_llm_provider, number

NAMES = frozenset(
    {
        "LLM_PROVIDER",
        "LLM_BASE_URL",
        "LLM_MODEL",
        "LLM_API_KEY_FILE",
        "CTX_SIZE",
        "PARALLEL",
        "LLM_HOLD",
    }
)
HELD = "Requests are held while the engine is being changed."
POLL_SECONDS = 0.05

_log = logging.getLogger("llm_provider.engine")


class Target:
    """The engine's settings: the environment's, and over them those of LLM_ENGINE_FILE.

    Raises ConfigurationError where that file cannot be read or holds what is not known.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        name = environ.get("LLM_ENGINE_FILE")
        self._file = Watched(Path(name)) if name else None
        self._holder = Holder(Path(name) if name else None)
        self.settings = self._read()

    @property
    def parallel(self) -> int:
        """Requests that the engine runs at once."""
        return count(self.settings, "PARALLEL") or 1

    @property
    def context_size(self) -> int | None:
        """Tokens of one conversation, as was asked for; None where not told."""
        return count(self.settings, "CTX_SIZE")

    @property
    def hold(self) -> float:
        """Seconds that requests are to be held for, at most; 0 where they are not to be held."""
        return _hold(self.settings)

    async def follow(self, gate: Gate) -> None:
        """Change `gate` over to whatever the file says, until it retires."""
        if self._file is None:
            return
        while not gate.retiring:
            if self._file.changed():
                self._apply(gate)
            elif self.hold:
                await self._follow_holder(gate)
            await asyncio.sleep(POLL_SECONDS)

    def _apply(self, gate: Gate) -> None:
        before = self._engine()
        try:
            settings = self._read()
            provider = get_llm_provider(environ=settings)
        except ConfigurationError as error:
            # As it was, for whoever writes it may be half-way through.
            _log.error("the engine before stays: %s", error)
            return
        self.settings = settings
        if self._engine() != before:
            gate.point(provider, self.parallel)
        if not self.hold:
            self._holder.forget()
            gate.resume()
        elif self._holder.counts():
            gate.pause(HELD, self.hold)
        else:
            gate.abandon()

    async def _follow_holder(self, gate: Gate) -> None:
        """End a hold whose process is gone; begin it again once another process took its place."""
        if self._holder.counts():
            if not gate.paused:
                gate.pause(HELD, self.hold)
        elif gate.paused:
            # No request has asked the engine for a while: it may be gone as well.
            await gate.probe()
            if not self._holder.counts():
                gate.abandon()

    def _engine(self) -> dict[str, str]:
        return {name: self.settings.get(name, "") for name in NAMES - {"LLM_HOLD"}}

    def _read(self) -> dict[str, str]:
        found = dict(self._environ)
        lines = []
        if self._file is not None:
            lines = self._file.lines("The engine file", "LLM_PROVIDER=llamacpp")
        for line in lines:
            name, equals, value = line.partition("=")
            if not equals or name not in NAMES:
                raise ConfigurationError(
                    # Not the value: it may be a key.
                    f"LLM_ENGINE_FILE holds {name[:80]!r}; "
                    f"known are: {', '.join(sorted(NAMES))}, each as NAME=VALUE."
                )
            found[name] = value
            if name == "LLM_API_KEY_FILE":
                found.pop("LLM_API_KEY", None)  # it would win over the file's
        for name in ("PARALLEL", "CTX_SIZE"):
            count(found, name)  # says what is wrong now, not when it is needed
        _hold(found)
        return found


def _hold(settings: Mapping[str, str]) -> float:
    return 0.0 if settings.get("LLM_HOLD") == "0" else number(settings, "LLM_HOLD", 0)
