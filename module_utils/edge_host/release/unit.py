"""What the recovery's unit (`edge-llm.service`) and its starts have to do with each other.

A change runs in a unit of its own, whose ExecStopPost= starts the recovery where the change was
interrupted. The recovery does not run in ExecStopPost= itself: systemd kills it there after
TimeoutStopSec=, and does not restart it.
"""

from __future__ import annotations

from pathlib import Path

from ..systemd import notify
from ..unit_files.recovery import SERVICE


def build_recovery_command(journal: Path) -> str:
    """Return the command for ExecStopPost= of a change that starts a recovery, if one is needed.

    The command does not wait: the recovery has a time limit of its own.
    """
    return f'/bin/sh -c "test ! -e {journal} || exec systemctl --no-block restart {SERVICE}"'


def extend_time_limit(seconds: float) -> None:
    """Tell systemd that the recovery ends within so many seconds from now."""
    notify(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")


def notify_ready() -> None:
    """Tell systemd that the host is recovered."""
    notify("READY=1")
