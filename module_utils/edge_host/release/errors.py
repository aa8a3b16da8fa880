"""Why a change is not possible, or was undone."""

from __future__ import annotations


class Failure(Exception):
    """Why a change cannot be, or was undone; a sentence. `log` is what the engine said last."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


class Busy(Failure):
    """Somebody else changes the host."""
