"""What an engine says and takes of memory: its log, and the mappings of its processes."""

from __future__ import annotations

import re
from collections.abc import Iterable

MIB = 1024**2
SMAPS = (
    "for each in /proc/[0-9]*; do case $(<$each/comm) in ollama|llama-server)"
    " cat $each/smaps;; esac; done"
)
"""For bash in an engine's container: the mappings of its processes."""


def said(log: str, what: str) -> float:
    """Bytes of all buffers of a kind that an engine's log tells of."""
    sizes = re.findall(rf" {what} buffer size = +([\d.]+) MiB", log)
    assert sizes, f"The log tells of no {what} buffer: {log}"
    return sum(map(float, sizes)) * MIB


def resident(smaps: Iterable[str]) -> dict[str, int]:
    """Resident bytes of an engine's processes, by the file that is mapped; "" is no file."""
    found: dict[str, int] = {}
    file = ""
    for line in smaps:
        if mapping := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$", line):
            file = mapping[1]
        elif size := re.match(r"Rss: +(\d+) kB", line):
            found[file] = found.get(file, 0) + int(size[1]) * 1024
    assert found, "No engine's process can be seen."
    return found


def needed(log: str, found: dict[str, int]) -> float:
    """Bytes that an engine cannot do without, of those that are `resident`.

    What it has read of the model's file and keeps in another form is not among them: the kernel
    drops that when memory is short.
    """
    file = sum(size for name, size in found.items() if name.startswith("/models/"))
    mapped = said(log, "CPU_Mapped model") if "CPU_Mapped model" in log else 0.0
    return sum(found.values()) - file + min(file, mapped)
