"""Exit statuses of the command."""

from __future__ import annotations

OK, FAILED, USAGE, NOT_REACHABLE = range(4)
STOPPED = 130
