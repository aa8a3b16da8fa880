"""Sizes and lists as messages show them."""

from __future__ import annotations

import difflib

MIB = 1024**2
GIB = 1024**3
Problem = str


def join_names(names: list[str]) -> str:
    return ", ".join(sorted(names))


def did_you_mean(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""


def format_mib(size: int) -> str:
    return f"{round(size / MIB):,} MiB"
