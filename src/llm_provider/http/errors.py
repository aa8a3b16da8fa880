"""What can go wrong with a connection, below any question of what an engine answers."""

from __future__ import annotations


class TransportError(Exception):
    """A request got no whole answer; the text says why."""


class ConnectError(TransportError):
    """No connection was made. `refused`: the host is there, and the port is not open."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class ReadTimeout(TransportError):
    """Nothing came for longer than allowed."""


class ConnectionLost(TransportError):
    """The connection ended before the answer did."""


class InvalidResponse(TransportError):
    """What came is not HTTP."""
