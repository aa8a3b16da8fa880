"""Sizes as messages show them.

Pure functions: the control machine imports this module, too.
"""

from __future__ import annotations

from .constants import MIB


def format_mib(size: float) -> str:
    """Return bytes as text in whole MiB: memory, disks and estimates."""
    return f"{round(size / MIB):,} MiB"


def format_size(size: float) -> str:
    """Return bytes as text in MiB, with a tenth below 10: what a download moves may be little."""
    return format_mib(size) if size >= 10 * MIB else f"{size / MIB:.1f} MiB"
