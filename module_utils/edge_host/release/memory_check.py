"""Whether an engine fits the host's memory, alone or beside the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

from ..constants import MIB
from ..files import open_files, read_text
from ..host_info.hardware import parse_meminfo
from ..json_data import Facts
from ..sizes import format_mib
from .errors import ReleaseError
from .store import Release

# Other memory use may change while two engines are loaded.
_SPARE_MEMORY = 256 * MIB


def check_memory(plan: Facts, replaced: Optional[Facts]) -> None:
    """Raise ReleaseError where the planned engine does not fit, even in place of the old one.

    `replaced` is the plan of the release whose engine stops.
    """
    needed, free = _engine_memory(plan), read_available_memory()
    freed = _engine_memory(replaced) if replaced else 0
    if needed <= free + freed:
        return
    holders = find_gpu_processes()
    raise ReleaseError(
        f"{plan['model']['name']} does not fit the host's memory: its engine needs"
        f" {format_mib(needed)}, and {format_mib(free)} are free"
        + (f", beside {format_mib(freed)} of the engine that it replaces" if freed else "")
        + (f"; these processes hold memory of the GPU: {', '.join(holders)}" if holders else "")
        + ". Stop other processes that use memory, or choose a smaller llm_model"
    )


def fits_beside(release: Release) -> bool:
    """Whether the release's engine may load while the old one still serves."""
    if release.swap == "auto":
        return read_available_memory() >= _engine_memory(release.plan) + _SPARE_MEMORY
    return release.swap == "beside"


def read_available_memory() -> int:
    """Return the bytes of memory that are available on the host."""
    return parse_meminfo(read_text(Path("/proc/meminfo")) or "")[1] or 0


def _engine_memory(plan: Facts) -> int:
    """Return the bytes that an engine takes: those of the plan without the system's."""
    return int(plan["memory"]["total"] - plan["memory"]["system"])


def find_gpu_processes(proc: Path = Path("/proc")) -> List[str]:
    """Return the processes that hold memory of a Jetson's GPU, as `name (pid N)`."""
    found = []
    for process in proc.glob("[0-9]*"):
        if "/dev/nvmap" in open_files(process):
            found.append(f"{(read_text(process / 'comm') or '').strip()} (pid {process.name})")
    return sorted(found)
