"""What the kernel can do."""

from __future__ import annotations

import gzip
import re
import zlib
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


def parse_kernel_option(text: str, option: str) -> Optional[bool]:
    """Whether a kernel has an option, in it or as a module; None for text that is no kernel's
    configuration.
    """
    if not re.search(r"^(?:# )?CONFIG_\w", text, re.M):
        return None
    return re.search(rf"^CONFIG_{option}=[ym]\s*$", text, re.M) is not None


def parse_module(builtin: str, loadable: str, module: str) -> Optional[bool]:
    """Whether a kernel has a module, by its modules.builtin and modules.dep; None where one of the
    two is empty and the other does not have it.
    """
    if re.search(rf"^(?:\S*/)?{module}\.ko\b", f"{builtin}\n{loadable}", re.M):
        return True
    return False if builtin and loadable else None


def read_kernel(system: Path) -> Facts:
    """{"release", "memory_cgroup", "ip_nf_raw"}: the latter two are None where unknown."""
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
        "ip_nf_raw": read_ip_nf_raw(system, release),
    }


def read_ip_nf_raw(system: Path, release: str) -> Optional[bool]:
    """Whether the kernel has iptables' raw table, in which Docker 28 writes; None if unknown."""
    try:
        packed = gzip.decompress((system / "proc/config.gz").read_bytes())
    except (OSError, EOFError, zlib.error):
        packed = b""
    answer = parse_kernel_option(packed.decode("utf-8", "replace"), "IP_NF_RAW")
    if answer is None and release:
        text = read_text(system / "boot" / f"config-{release}") or ""
        answer = parse_kernel_option(text, "IP_NF_RAW")
    if answer is None and release:
        folder = system / "lib/modules" / release
        builtin, loadable = (
            read_text(folder / f"modules.{kind}") or "" for kind in ("builtin", "dep")
        )
        answer = parse_module(builtin, loadable, "iptable_raw")
    return answer
