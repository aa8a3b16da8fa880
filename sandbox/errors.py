"""What the sandbox says when it cannot go on."""

from __future__ import annotations


class SandboxError(Exception):
    """One sentence for the person at the terminal: what was asked, what was found, what to do."""
