"""What the kernel can do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from ..files import read_text
from ..json_data import Facts


def parse_memory_cgroup(controllers: Optional[str], cgroups: str, release: str) -> Optional[bool]:
    """Whether the kernel can limit the memory of a group of processes; None where unknown.

    `controllers` is cgroup v2's cgroup.controllers, None where the host has v1; `cgroups` is
    /proc/cgroups; `release` the kernel's.
    """
    if controllers is not None:
        return "memory" in controllers.split()
    match = re.search(r"^memory\s+[0-9]+\s+[0-9]+\s+([01])\s*$", cgroups, re.M)
    if match:
        return match.group(1) == "1"
    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release)
    if not cgroups.startswith("#subsys_name") or version is None:
        return None
    # From 6.12 on, that file may leave out controllers: raspberrypi/linux#6980.
    return False if (int(version.group(1)), int(version.group(2))) < (6, 12) else None


def read_kernel(system: Path) -> Facts:
    """{"release", "memory_cgroup"}: each is None where unknown."""
    release = (read_text(system / "proc/sys/kernel/osrelease") or "").strip()
    if not re.match(r"[0-9][\w.+~-]*$", release, re.ASCII):  # it becomes the name of a file
        release = ""
    return {
        "release": release or None,
        "memory_cgroup": parse_memory_cgroup(
            read_text(system / "sys/fs/cgroup/cgroup.controllers"),
            read_text(system / "proc/cgroups") or "",
            release,
        ),
    }
