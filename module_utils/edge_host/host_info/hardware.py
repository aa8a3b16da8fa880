"""Memory, CPU, GPUs, temperature and disk."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from ..constants import CPU_FEATURES
from ..files import read_text
from ..json_data import Facts

# Thermal zones that are at 100 degrees whatever the board does (a Jetson's PMIC-Die), or are a
# card's (iwlwifi).
_OTHER_ZONES = re.compile(r"PMIC|iwlwifi", re.I)
# A Jetson's own GPU, whose memory is the board's.
_OWN_GPU = re.compile(r"\(nvgpu\)|^(?:NVIDIA )?(?:Orin|Thor|Xavier)\b")


def parse_memory(text: str) -> Dict[str, int]:
    """The sizes of /proc/meminfo in bytes, by their names in it."""
    return {
        key: int(kilobytes) * 1024
        for key, kilobytes in re.findall(r"^(\w+):\s+([0-9]{1,15}) kB$", text, re.M)
    }


def parse_cpu_features(text: str) -> Optional[List[str]]:
    """Those of CPU_FEATURES that all CPUs of /proc/cpuinfo have; None where it names none."""
    lines = re.findall(r"^(?:flags|Features)[ \t]*:(.*)$", text, re.M)
    if not lines:
        return None
    return sorted(CPU_FEATURES.intersection(*(line.split() for line in lines)))


def parse_meminfo(text: str) -> Tuple[Optional[int], Optional[int]]:
    """(MemTotal, MemAvailable) of /proc/meminfo in bytes; None for one that is not there."""
    found = parse_memory(text)
    return found.get("MemTotal"), found.get("MemAvailable")


def parse_zram(text: str) -> Optional[int]:
    """Bytes of swap in compressed memory (zram), of /proc/swaps; None for any other text."""
    if not text.startswith("Filename"):
        return None
    rows = re.findall(r"^/dev/zram\S*[ \t]+\w+[ \t]+([0-9]{1,15})\b", text, re.M)
    return sum(int(kilobytes) * 1024 for kilobytes in rows)


def parse_gpus(text: str) -> List[Facts]:
    """The GPUs with memory of their own: [{"name", "memory_total"}], in bytes.

    From `nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits`, which has [N/A]
    for a Jetson's.
    """
    rows = re.findall(r"^(.+), *([0-9]{1,9})\s*$", text, re.M)
    return [
        {"name": name, "memory_total": int(total) << 20}
        for name, total in rows
        if not _OWN_GPU.search(name)
    ]


def parse_temperature(text: str) -> Optional[float]:
    """Degrees Celsius of a thermal zone; None for an impossible value (-256 without power)."""
    match = re.match(r"(-?[0-9]{1,6})\s*$", text)
    value = int(match.group(1)) if match else None
    return None if value is None or not -100_000 < value < 200_000 else value / 1000


def read_disk(root: Path) -> Facts:
    """Room on the file system that `root` is on, or would be made on: bytes free and in all."""
    path = root
    while not path.exists():
        path = path.parent
    room = os.statvfs(path)
    return {
        "path": str(path),
        "free": room.f_bavail * room.f_frsize,
        "total": room.f_blocks * room.f_frsize,
    }


def read_gpu_groups(devices: Path) -> List[int]:
    """The groups, other than root's, that own a GPU's device files; `devices` is /dev."""
    groups = set()
    for pattern in ("nvmap", "nvhost-*", "nvgpu/*/*", "nvidia*", "dri/render*"):
        for path in devices.glob(pattern):
            if path.is_char_device():
                groups.add(path.stat().st_gid)
    return sorted(groups - {0})


def read_temperature(system: Path) -> Optional[float]:
    """Degrees Celsius of the board's hottest zone, or None where no zone has any."""
    found = []
    for zone in (system / "sys/class/thermal").glob("thermal_zone*"):
        if not _OTHER_ZONES.search(read_text(zone / "type") or ""):
            found.append(parse_temperature(read_text(zone / "temp") or ""))
    return max((each for each in found if each is not None), default=None)


def read_zram(system: Path, memory: Mapping[str, int]) -> Optional[int]:
    """Bytes of swap in compressed memory; `memory` is the content of /proc/meminfo."""
    found = parse_zram(read_text(system / "proc/swaps") or "")
    if found is None and memory.get("SwapTotal") == 0:
        return 0  # a kernel that cannot swap has no such file
    return found
