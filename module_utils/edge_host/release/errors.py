"""Errors of changes of a host's release."""

from __future__ import annotations

from ..errors import ReleaseError

__all__ = ["HostLockedError", "ReleaseError"]


class HostLockedError(ReleaseError):
    """Another process changes the host."""
