"""HTTP over a Unix socket."""

from __future__ import annotations

import http.client
import socket
import struct
from typing import Optional

_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group
_BLOCK = 1024 * 1024


class UnixConnection(http.client.HTTPConnection):
    """A connection to the server at a Unix socket.

    With `owner`, nothing is sent to a server of another user: who can write to the socket's folder
    can put a link to another server's socket in its place.
    """

    def __init__(self, path: str, timeout: float, owner: Optional[int] = None) -> None:
        super().__init__("localhost", timeout=timeout, blocksize=_BLOCK)
        self._path = path
        self._owner = owner

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if self._owner is not None:
            found = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            user = _CREDENTIALS.unpack(found)[1]
            if user != self._owner:
                self.close()
                raise ConnectionError(
                    f"the server at {self._path} runs as the user {user}, not as {self._owner}"
                )
