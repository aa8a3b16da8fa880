"""Keeps what a host says from controlling the operator's terminal.

Control characters are commands there: they set its title, clear it, or reorder what is read. Some
of them Ansible writes itself, for colours. A host that writes the same ones must not be taken for
Ansible, so Ansible's are put in as codes that nobody else can know.
"""

from __future__ import annotations

import re
import secrets

from edge_fleet.text import clean_text

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_KEPT = re.compile(r"([\n\t])")
_PRIVATE_USE = range(0xF0000, 0xFFFFE)
"""Characters that have no meaning of their own; a host's are escaped."""


class Screen:
    """Makes texts harmless, with the colours that were announced by `mark`."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._colours: dict[str, str] = {}

    def escape(self, text: str) -> str:
        """The text with all escaped that is no part of a line; marked colours are kept."""
        text = text.replace("\r\n", "\n")
        if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
            return text
        if not self._codes:
            return _escaped(text)
        codes = "|".join(map(re.escape, self._colours))
        pieces = re.split(f"({codes})", text)
        return "".join(each if each in self._colours else _escaped(each) for each in pieces)

    def mark(self, text: str) -> str:
        """The text with its colours as codes that `escape` keeps; it must hold no other ones."""
        return _COLOUR.sub(lambda found: self._code(found.group()), text)

    def show(self, text: str) -> str:
        """The text for the terminal: escaped, with the colours that were marked."""
        shown = self.escape(text)
        for code, colour in self._colours.items():
            shown = shown.replace(code, colour)
        return shown

    def _code(self, colour: str) -> str:
        """The code of a colour. It is as long, since Ansible pads coloured texts to a width."""
        if colour not in self._codes:
            code = "".join(chr(secrets.choice(_PRIVATE_USE)) for _ in colour)
            self._codes[colour], self._colours[code] = code, colour
        return self._codes[colour]


def _escaped(text: str) -> str:
    return "".join(
        each if each in ("\n", "\t") else clean_text(each, len(each)) for each in _KEPT.split(text)
    )
