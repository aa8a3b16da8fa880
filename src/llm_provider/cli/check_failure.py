"""The failure of one check."""

from __future__ import annotations


class Failed(Exception):
    """A check saw something other than what it wanted."""
