"""Texts of a model, as a terminal, a log and XML can have them: an answer may hold anything."""

from __future__ import annotations

import re

SHOWN = 300
"""Characters of an answer that a message has."""
# Controls that steer a terminal; marks that change the direction of all that follows in a line;
# surrogates, which no encoding has; and what XML 1.0 has no place for.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufff9-\ufffb\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text with U+FFFD in place of each character that could do harm; lines and tabs stay."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def shown(text: str, most: int = SHOWN) -> str:
    """The text in quotes, on one line, and cut where it is long: for messages."""
    line = printable(" ".join(text.split()))
    if len(line) > most:
        return f"'{line[:most]}...' ({len(text)} characters)"
    return f"'{line}'"
