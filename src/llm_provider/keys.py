"""The chat API's keys: a file with one per line, read again when it changes."""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256
from pathlib import Path

from llm_provider.errors import ConfigurationError

_log = logging.getLogger("llm_provider.keys")


class KeyFile:
    """The keys in `path`: one per line; empty lines and lines that begin with # do not count.

    Raises ConfigurationError when the file cannot be read or holds no key. Later, such a file
    is logged and the keys before it stay in force: an editor may be half-way through writing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature = self._sign()
        self._digests = self._read()

    def accepts(self, authorization: str | None) -> bool:
        """Whether a request's Authorization header carries one of the keys as a bearer token."""
        self._refresh()
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        # Every key is compared, each in constant time, so that timing tells nothing.
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == "bearer" and any(found)

    def _refresh(self) -> None:
        signature = self._sign()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._digests = self._read()
            _log.info("keys read again", extra={"keys": len(self._digests)})
        except ConfigurationError as error:
            _log.error("the keys before stay in force: %s", error)

    def _sign(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:  # reading it will say why
            return ()
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> list[bytes]:
        try:
            lines = [line.strip() for line in self._path.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The key file {self._path} cannot be read: {error}."
            ) from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ConfigurationError(
                f"The key file {self._path} holds no key; one per line is needed."
            )
        if any(not key.isascii() or " " in key for key in keys):
            raise ConfigurationError(
                f"The key file {self._path} holds a line that is no key: a key is one ASCII word."
            )
        return [sha256(key.encode()).digest() for key in keys]
