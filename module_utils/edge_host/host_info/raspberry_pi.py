"""What only a Raspberry Pi has: its kernel command line file and its firmware's warnings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional

from ..files import read_text
from ..json_data import Facts

THROTTLED_COMMAND = ("vcgencmd", "get_throttled")
CMDLINE_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
# What Raspberry Pi OS leaves at the second where the first is the file.
_MOVED = "The file you are looking for has moved"
_THROTTLED = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "under-voltage since the start",
    17: "frequency capped since the start",
    18: "throttled since the start",
    19: "soft temperature limit since the start",
}

THROTTLED_NOW = tuple(phrase for phrase in _THROTTLED.values() if phrase.endswith(" now"))
"""The warnings that are about this moment."""


def parse_throttled(text: str) -> Optional[List[str]]:
    """The warnings of `vcgencmd get_throttled`; None where the command does not answer."""
    match = re.match(r"throttled=0x([0-9a-fA-F]{1,8})\s*$", text)
    if match is None:
        return None
    bits = int(match.group(1), 16)
    return [phrase for bit, phrase in _THROTTLED.items() if bits >> bit & 1]


def parse_cgroup_words(text: str) -> List[str]:
    """The words of a kernel's command line that are about cgroups, in their order."""
    return [word for word in text.split() if "cgroup" in word]


def read_boot(system: Path, kind: str) -> Facts:
    """The words about cgroups with which the kernel started, and those of a Raspberry Pi's file.

    {"file": path of cmdline.txt or None, "file_words", "lines" (that have any text: the firmware
    reads the first), "words": the kernel's own, of which the last on a subject counts}
    """
    found, text = None, ""
    for path in CMDLINE_FILES if kind == "pi" else ():
        there = read_text(system / path.lstrip("/"))
        if there is not None and _MOVED not in there:
            found, text = path, there
            break
    return {
        "file": found,
        "file_words": parse_cgroup_words(text),
        "lines": sum(1 for line in text.splitlines() if line.strip()),
        "words": parse_cgroup_words(read_text(system / "proc/cmdline") or ""),
    }
