"""Where the chat API listens: on sockets that the door holds, or on one of its own.

The door (see `door`) holds them for as long as the host is up, so that connections wait while a
chat API is replaced, and two of them may serve the same ones while they change over.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_provider.door import GREETING, listen_at
from llm_provider.errors import ConfigurationError

RETRY_SECONDS = 0.25
_MOST = 16

_log = logging.getLogger("llm_provider.door")


@dataclass
class Listeners:
    """What one process listens on.

    `api`: the chat API's sockets; the last of them is at `own`, where that is set: a Unix socket
    that leads to this very process, however many share the others. `engine`: for the direct line to
    the engine. `door`: the connection to the door, where these are the door's sockets.
    """

    api: list[socket.socket]
    engine: socket.socket | None = None
    door: socket.socket | None = None
    own: Path | None = None

    def add_own(self, path: Path) -> None:
        """Listen on a Unix socket too. Raises ConfigurationError."""
        try:
            self.api.append(listen_at(path))
        except OSError as error:
            raise ConfigurationError(f"CHAT_API_SOCKET {path} cannot be made: {error}.") from error
        self.own = path

    def forget_own(self) -> None:
        """Have nobody look for this process there any more."""
        if self.own is not None:
            self.own.unlink(missing_ok=True)

    def close_shared(self) -> None:
        """Let go of all but its own Unix socket; the door holds on."""
        for each in (*(self.api[:-1] if self.own else self.api), self.engine, self.door):
            if each is not None:
                each.close()


def from_door(
    path: Path, port: int, engine_port: int, given_up: Callable[[], bool]
) -> Listeners | None:
    """Get the sockets from the door at `path`, waiting for it; None where `given_up` meanwhile.

    Raises ConfigurationError for a door that does not hold `port`.
    """
    told = False
    while not given_up():
        door = socket.socket(socket.AF_UNIX)
        # A door speaks at once; what does not is none, or not yet.
        door.settimeout(4 * RETRY_SECONDS)
        try:
            door.connect(str(path))
            _, files, _, _ = socket.recv_fds(door, len(GREETING), _MOST)
            problem = "it hung up"
        except OSError as error:
            files, problem = [], str(error)
        if files:
            return _sorted(door, files, port, engine_port)
        door.close()
        if not told:
            told = True
            _log.warning("waiting for the door %s: %s", path, problem)
        time.sleep(RETRY_SECONDS)
    return None


def _sorted(door: socket.socket, files: list[int], port: int, engine_port: int) -> Listeners:
    held = {each.getsockname()[1]: each for each in (socket.socket(fileno=file) for file in files)}
    if port not in held:
        raise ConfigurationError(
            f"The door holds no port {port}; it holds: {', '.join(map(str, held))}."
        )
    door.setblocking(False)
    return Listeners([held[port]], held.get(engine_port), door)
