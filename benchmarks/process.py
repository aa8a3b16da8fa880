"""What a process has used of CPU and memory, by Linux' own account in /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PROC = Path("/proc")


def cpu_seconds(pid: int, proc: Path = _PROC) -> float:
    """CPU time that a process has used so far, in user and kernel mode, with all its threads."""
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, field: str = "VmRSS", proc: Path = _PROC) -> float:
    """MiB that a process has (VmRSS), or has had at most (VmHWM). Raises OSError."""
    status = proc / str(pid) / "status"
    if found := re.search(rf"^{field}:\s+(\d+) kB$", status.read_text(), re.MULTILINE):
        return int(found[1]) / 1024
    raise OSError(f"{status} has no {field}.")


def forget_peak(pid: int, proc: Path = _PROC) -> None:
    """Have VmHWM begin anew, at what the process has now (proc(5), clear_refs)."""
    (proc / str(pid) / "clear_refs").write_text("5")
