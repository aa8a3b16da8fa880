"""The chat API's keys: a file with one per line, read again when it changes."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from llm_provider.errors import ConfigurationError
from llm_provider.server.watched_file import WatchedFile

_log = logging.getLogger("llm_provider.keys")


class KeyFile:
    """The keys in `path`: one per line; empty lines and lines that begin with # do not count.

    Raises ConfigurationError when the file cannot be read or holds no key. Later, such a file
    is logged and the keys before it stay in force: an editor may be half-way through writing.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path)
        self._digests = self._read()

    def accepts(self, offered: Iterable[str]) -> bool:
        """Whether one of the keys that a request offers is one of these."""
        self._refresh()
        digests = [sha256(key.encode()).digest() for key in offered]
        # Every key is compared, each in constant time, so that timing tells nothing.
        found = [hmac.compare_digest(one, known) for one in digests for known in self._digests]
        return any(found)

    def _refresh(self) -> None:
        if not self._file.changed():
            return
        try:
            self._digests = self._read()
            _log.info("keys read again", extra={"keys": len(self._digests)})
        except ConfigurationError as error:
            _log.error("the keys before stay in force: %s", error)

    def _read(self) -> list[bytes]:
        keys = self._file.lines("The key file", "one API key per line")
        if any(not key.isascii() or " " in key for key in keys):
            raise ConfigurationError(
                "The key file holds a line that is no key: a key is one ASCII word."
            )
        return [sha256(key.encode()).digest() for key in keys]
