"""The engine file: which engine the chat API stands before, followed while it runs.

The file holds NAME=VALUE lines which override the environment's: LLM_PROVIDER, LLM_BASE_URL,
LLM_MODEL, LLM_API_KEY_FILE, LLM_TASK, CTX_SIZE, PARALLEL; LLM_HOLD=SECONDS holds requests, for that
long or LLM_HOLD_SECONDS, whichever is more, and no longer than the process that asked for it lives
(see `hold_lock`). It is replaced whole (written beside, then renamed), and a process that starts
anew reads the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from llm_provider.errors import ConfigurationError
from llm_provider.providers.selection import get_llm_provider
from llm_provider.providers.settings import EngineSettings
from llm_provider.server.engine_state import EngineState
from llm_provider.server.hold_lock import HoldLock
from llm_provider.server.watched_file import WatchedFile

NAMES = frozenset(
    {
        "LLM_PROVIDER",
        "LLM_BASE_URL",
        "LLM_MODEL",
        "LLM_API_KEY_FILE",
        "LLM_TASK",
        "CTX_SIZE",
        "PARALLEL",
        "LLM_HOLD",
    }
)
HELD = "Requests are held while the engine is being changed."
POLL_SECONDS = 0.05

_log = logging.getLogger("llm_provider.engine")


class EngineFile:
    """The engine's settings: the environment's, and over them those of the file at `path`, if any.

    Raises ConfigurationError where that file cannot be read or holds what is not known.
    """

    def __init__(self, environ: Mapping[str, str], path: Path | None) -> None:
        self._environ = environ
        self._file = WatchedFile(path) if path else None
        self._lock = HoldLock(path)
        self.environ = self._read()

    @property
    def settings(self) -> EngineSettings:
        """The settings as they are now."""
        return EngineSettings(self.environ)

    async def follow(self, engine: EngineState) -> None:
        """Change `engine` to whatever the file says, until it retires."""
        if self._file is None:
            return
        changed = False
        failure = ""
        while not engine.retiring:
            try:
                changed = self._file.changed() or changed
                if changed:
                    self._apply(engine)
                    changed = False
                elif self.settings.hold_seconds:
                    await self._follow_lock(engine)
                failure = ""
            except Exception as error:
                # A defect, but one that must not leave the API with this engine for ever.
                if repr(error) != failure:
                    _log.exception("the engine file cannot be followed; it is tried again")
                failure = repr(error)
            await asyncio.sleep(POLL_SECONDS)

    def _apply(self, engine: EngineState) -> None:
        try:
            environ = self._read()
            provider = get_llm_provider(environ=environ)
        except ConfigurationError as error:
            # As it was, for whoever writes it may be half-way through.
            _log.error("the engine before stays: %s", error)
            return
        settings = EngineSettings(environ)
        if _engine(environ) != _engine(self.environ):
            engine.switch(provider, settings.parallel)
        self.environ = environ
        if not settings.hold_seconds:
            self._lock.forget()
            engine.release()
        elif self._lock.counts():
            engine.hold(HELD, settings.hold_seconds)
        else:
            engine.abandon()

    async def _follow_lock(self, engine: EngineState) -> None:
        """End a hold whose process is gone; begin it again once another process took its place."""
        if self._lock.counts():
            if not engine.on_hold:
                engine.hold(HELD, self.settings.hold_seconds)
        elif engine.on_hold:
            # No request has asked the engine for a while: it may be gone as well.
            await engine.probe()
            if not self._lock.counts():
                engine.abandon()

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
        EngineSettings(found).check_numbers()  # says what is wrong now, not when it is needed
        return found


def _engine(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings by which one engine differs from another."""
    return {name: environ.get(name, "") for name in NAMES - {"LLM_HOLD"}}
