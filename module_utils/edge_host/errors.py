"""The error of whatever changes a host."""

from __future__ import annotations


class ReleaseError(Exception):
    """A change of the release is impossible, or was undone.

    The text says what is wrong, what was found and what to do, without the last full stop. `log`
    has the last lines of the log of the container that failed.
    """

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log
