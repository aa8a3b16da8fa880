"""Texts for the terminal: control characters are escaped, announced colours are kept."""

from __future__ import annotations

import pytest

from edge_fleet.terminal import Screen

GREEN = "\x1b[0;32mok=1\x1b[0m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a line\n\tand another, in ümlauts", "a line\n\tand another, in ümlauts"),
        (
            "5\u00a0GB\u202f\u3000\U0001f468\u200d\U0001f527",
            "5\u00a0GB\u202f\u3000\U0001f468\u200d\U0001f527",
        ),
        ("windows\r\nlines", "windows\nlines"),
        ("over\rwritten", "over\\rwritten"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J\x00\x7f", "\\x9b2J\\x00\\x7f"),
        ("\u202egnp.exe\u2066\u200f", "\\u202egnp.exe\\u2066\\u200f"),
        ("\ufeff\u2028\ud800", "\\ufeff\\u2028\\ud800"),
        (GREEN, "\\x1b[0;32mok=1\\x1b[0m"),
        ("\U000f0000\U00100000", "\\U000f0000\\U00100000"),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    screen = Screen()
    assert screen.show(text) == shown
    # It is the same where colours are known, and where a worker has escaped the text before.
    screen.mark(GREEN)
    assert screen.show(text) == screen.show(shown) == shown


def test_announced_colours_are_kept() -> None:
    screen = Screen()
    marked = screen.mark(GREEN)
    assert len(marked) == len(GREEN) and "\x1b" not in marked
    assert screen.show(f"{marked} {GREEN}") == f"{GREEN} \\x1b[0;32mok=1\\x1b[0m"
    assert screen.mark(GREEN) == marked
    # Text that is coloured after it has been escaped in part.
    assert screen.show(screen.escape(f"\x07{marked}")) == f"\\x07{GREEN}"


def test_codes_differ_in_each_run() -> None:
    marked = Screen().mark(GREEN)
    other = Screen()
    other.mark(GREEN)
    assert "\x1b" not in other.show(marked)
