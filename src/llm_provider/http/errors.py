"""What can go wrong with a connection, below any question of what an engine answers.

    TransportError
    ├── ConnectError      no connection: the request was not sent
    ├── ReadTimeout       the server was silent for too long: the request may have run
    ├── ConnectionLost    the connection ended before the response: the request may have run
    └── InvalidResponse   the response is not valid HTTP, or exceeds a limit

No text contains credentials: texts are fixed, or the operating system's words for an error number.
"""

from __future__ import annotations


class TransportError(Exception):
    """A request got no complete response; the text says why."""


class ConnectError(TransportError):
    """No connection was made. `refused`: the host is reachable, and the port is not open."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class ReadTimeout(TransportError):
    """The server sent nothing for longer than allowed."""


class ConnectionLost(TransportError):
    """The connection ended before the response did."""


class InvalidResponse(TransportError):
    """The response is not valid HTTP, or exceeds a limit."""


class InvalidSetting(ValueError):
    """A URL, path, header or timeout is invalid. The text never contains credentials."""
