"""Small text files that are read again when they change."""

from __future__ import annotations

from pathlib import Path

from llm_provider.errors import ConfigurationError


class WatchedFile:
    """A file of lines; empty ones and those that begin with # do not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature = self._sign()

    def changed(self) -> bool:
        """Whether the file is another than when this was last asked."""
        signature = self._sign()
        if signature == self._signature:
            return False
        self._signature = signature
        return True

    def lines(self, what: str, example: str) -> list[str]:
        """Return the lines that count.

        Raises ConfigurationError, which calls the file `what`, where it cannot be read or has none.
        """
        try:
            lines = [line.strip() for line in self._path.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{what} {self._path} cannot be read: {error}.") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ConfigurationError(f"{what} {self._path} is empty; wanted: {example}.")
        return found

    def _sign(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:  # reading it will say why
            return ()
        return status.st_mtime_ns, status.st_ino, status.st_size
