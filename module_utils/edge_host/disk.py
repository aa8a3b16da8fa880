"""The space on a host's disks."""

from __future__ import annotations

import os
from pathlib import Path

from .constants import DISK_RESERVE
from .sizes import format_size


def free_space(folder: Path) -> int:
    """Return the bytes that may be written to a folder's disk, beside the reserve."""
    status = os.statvfs(folder)
    return max(0, status.f_bavail * status.f_frsize - DISK_RESERVE)


def describe_shortage(folder: Path, needed: int, action: str) -> str:
    """Return why a folder's disk has no space for so many bytes; empty where it has.

    `action` is what is still to be done with them, such as "downloaded". A phrase for messages.
    """
    free = free_space(folder)
    if needed <= free:
        return ""
    return (
        f"the disk of {folder} is too small: {format_size(needed)} are still to be {action}, and"
        f" {format_size(free)} are free beside the reserve of {format_size(DISK_RESERVE)}"
    )
