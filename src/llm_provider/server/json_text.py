"""Checks of JSON as text, for what a decoder that skips values does not look at.

Values that are passed on to an engine are never decoded, so that msgspec sees their structure only.
These functions find the rest: bytes that are no UTF-8, and numbers that no double can hold.
"""

from __future__ import annotations

import codecs
import math
import re

_CHUNK = 64 * 1024
_MOST_DIGITS = 1000
_MOST_SUSPICIOUS = 100
# The kinds of bytes that matter to numbers: digits become 0, both letters e become e.
_KINDS = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_RUN = b"0" * 200
_OVERLAP = len(_LONG_RUN)
# What is beyond question outside of strings: anything but digits, and numbers far below 1e308.
# Possessive throughout, so that a match takes linear time and no memory.
_HARMLESS = re.compile(
    rb"""(?:
        [^"0-9]++
      | "(?:[^"\\]++|\\.)*+"
      | (?: [0-9] (?:\.[0-9]{1,500}+)?+
            (?:[eE](?:\+?+(?:[12][0-9]{2}|30[0-7]|[0-9]{1,2}+)|-[0-9]{1,4}+))?+
          | [0-9]{2,200}+ (?:\.[0-9]{1,500}+)?+ (?:[eE](?:\+?+[0-9]{1,2}+|-[0-9]{1,4}+))?+
          | [0-9]{201,1000}+
        ) (?![0-9.eE])
    )*+""",
    re.DOTALL | re.VERBOSE,
)
_NUMBER = re.compile(rb"[0-9.eE+-]+")


def find_invalid_utf8(data: bytes | bytearray) -> int | None:
    """Return where `data` stops to be UTF-8, None where all of it is. Decodes a piece at a time."""
    if data.isascii():
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(view[start : start + _CHUNK])
        except UnicodeDecodeError as error:
            return start - held + error.start
    held = len(decoder.getstate()[0])
    return len(data) - held if held else None


def number_problem(data: bytes | bytearray) -> str | None:
    """Return what is wrong with the numbers of a JSON text, None where nothing is.

    A number has at most 1,000 digits, and is not beyond the range of a double. `data` must be valid
    JSON. The fast check finds no such number in nearly every body; the exact one tells numbers from
    text that looks like one.
    """
    if not _may_hold_huge_number(data):
        return None
    position = 0
    for _ in range(_MOST_SUSPICIOUS):
        matched = _HARMLESS.match(data, position)
        if matched is None or matched.end() == len(data):
            return None
        number = _NUMBER.match(data, matched.end())
        if number is None:
            return None
        if number.end() - number.start() > _MOST_DIGITS:
            return f"a number has {number.end() - number.start()} digits"
        text = number.group().decode()
        if not text.isdigit() and math.isinf(float(text)):
            return f"the number {text[:40]} is beyond the range of a double"
        position = number.end()
    return f"more than {_MOST_SUSPICIOUS} numbers are close to the range of a double"


def _may_hold_huge_number(data: bytes | bytearray) -> bool:
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        kinds = bytes(view[start : start + _CHUNK + _OVERLAP]).translate(_KINDS)
        if _LONG_RUN in kinds or b"0e000" in kinds or b"0e+000" in kinds:
            return True
    return False
