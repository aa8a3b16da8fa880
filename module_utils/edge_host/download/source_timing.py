"""How long a download goes on with a source that sends nothing: others wait for its bytes."""

from __future__ import annotations

CONNECT_SECONDS = 15
"""Until a source has to be connected."""
SILENT_SECONDS = 30
"""Until a connected source that sends nothing counts as gone."""
MAX_ATTEMPTS = 5
"""Attempts in a row that may end without a further byte."""
_MAX_PAUSE = 15.0


def pause_seconds(attempts: int) -> float:
    """Return how long to wait after so many attempts without a further byte."""
    return min(2.0**attempts, _MAX_PAUSE)


def max_silence_seconds() -> float:
    """Return the longest time between two bytes of a source with which a download succeeds."""
    attempts = MAX_ATTEMPTS * (CONNECT_SECONDS + SILENT_SECONDS)
    return SILENT_SECONDS + attempts + sum(map(pause_seconds, range(MAX_ATTEMPTS)))
