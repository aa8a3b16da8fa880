"""Where the chat API listens: on sockets of the socket holder, or on one of its own.

The socket holder keeps them for as long as the host is up, so that connections wait while a chat
API is replaced, and two of them may serve the same ones while they change over.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_provider.errors import ConfigurationError
from llm_provider.standalone.socket_holder import BACKLOG, GREETING, listen_at

KEPT = b"kept\n"
"""The greeting of a socket holder whose sockets outlive it: systemd has them."""
REJOIN_SECONDS = 30.0
"""How long this process serves on without such a socket holder, until the next one is there."""
RETRY_SECONDS = 0.25
_MOST = 16

_log = logging.getLogger("llm_provider.listeners")


@dataclass
class Listeners:
    """What one process listens on.

    `api`: the chat API's sockets; the last of them is at `own`, where that is set: a Unix socket
    that leads to this very process, however many share the others. `engine`: for the engine's
    own API (`engine_port`). `holder`: the connection to the socket holder, where these are its
    sockets, and `kept`: whether they outlive it.
    """

    api: list[socket.socket]
    engine: socket.socket | None = None
    holder: socket.socket | None = None
    own: Path | None = None
    kept: bool = False

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

    def has_sockets_of(self, other: Listeners) -> bool:
        """Whether the other one's network sockets are these very sockets, by other descriptors."""
        return _identities(self) == _identities(other)

    @property
    def network(self) -> list[socket.socket]:
        """Those of `api` that clients connect to over the network."""
        return self.api[:-1] if self.own else self.api

    @property
    def unix(self) -> list[socket.socket]:
        """The others of `api`."""
        return self.api[-1:] if self.own else []

    def close_shared(self) -> None:
        """Close all but its own Unix socket; the socket holder keeps them open."""
        for each in (*self.network, self.engine, self.holder):
            if each is not None:
                each.close()


def own_port(host: str, port: int) -> Listeners:
    """Listen on a port of its own. Raises OSError where the port is in use, or no such host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listeners([socket.create_server((host, port), family=family, backlog=BACKLOG)])


def from_socket_holder(
    path: Path, port: int, engine_port: int, given_up: Callable[[], bool]
) -> Listeners | None:
    """Get the sockets of the socket holder at `path`, waiting for it; None once `given_up`.

    Raises ConfigurationError for a socket holder that does not hold `port`.
    """
    logged = False
    while not given_up():
        holder = socket.socket(socket.AF_UNIX)
        # A socket holder speaks at once; what does not is none, or not yet.
        holder.settimeout(4 * RETRY_SECONDS)
        try:
            holder.connect(str(path))
            said, files, _, _ = socket.recv_fds(holder, len(GREETING), _MOST)
            problem = "it hung up"
        except OSError as error:
            files, problem = [], str(error)
        if files:
            found = _sorted(holder, files, port, engine_port)
            found.kept = said == KEPT
            return found
        holder.close()
        if not logged:
            logged = True
            _log.warning("waiting for the socket holder %s: %s", path, problem)
        time.sleep(RETRY_SECONDS)
    return None


def _identities(listeners: Listeners) -> list[int]:
    sockets = [*listeners.network, listeners.engine]
    return [os.fstat(each.fileno()).st_ino for each in sockets if each is not None]


def _sorted(holder: socket.socket, files: list[int], port: int, engine_port: int) -> Listeners:
    held = {each.getsockname()[1]: each for each in (socket.socket(fileno=file) for file in files)}
    if port not in held:
        raise ConfigurationError(
            f"The socket holder has no port {port}; it has: {', '.join(map(str, held))}."
        )
    holder.setblocking(False)
    return Listeners([held[port]], held.get(engine_port), holder)
