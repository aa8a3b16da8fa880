"""Versions, lists and texts of others as messages show them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable

from edge_host.constants import MIB

GIB = 1024 * MIB
MOST_TEXT = 1000
"""Characters of a host's text that are shown at most."""
Problem = str
_JOINER = "\u200d"
"""Makes one sign of several, in emoji and in scripts such as Devanagari; it moves nothing."""


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


def clean_text(value: object, most: int) -> str:
    """A text of at most so many characters, with those escaped that are no part of a line."""
    if not isinstance(value, str):
        return ""
    if len(value) <= most and value.isprintable():
        return str(value)
    text = value[: most + 1]
    shown = "".join(
        each if _is_of_a_line(each) else each.encode("unicode_escape").decode() for each in text
    )
    return shown if len(value) <= most else f"{shown[:most]}..."


def _is_of_a_line(character: str) -> bool:
    """Whether it is shown as it is. Python takes all spaces but one for not printable: texts in
    French have narrow ones that do not break, and those in Japanese wide ones.
    """
    return (
        character.isprintable() or character == _JOINER or unicodedata.category(character) == "Zs"
    )
