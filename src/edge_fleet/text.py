"""Versions and lists as messages show them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from edge_host.constants import MIB

GIB = 1024 * MIB
Problem = str


def printable(text: str, most: int = 2000) -> str:
    """A text that a host had a part in, for a terminal: one line of a bounded length."""
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return line if len(line) <= most else f"{line[:most]}..."


def join_names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def join_choices(choices: Collection[str]) -> str:
    """The choices as a sentence has them: a, b or c."""
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the most similar name, with a space before; empty where none is."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""


def parse_version(text: str) -> tuple[int, ...]:
    """The first three numbers of a version: "28.0.1+dfsg1" is (28, 0, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
