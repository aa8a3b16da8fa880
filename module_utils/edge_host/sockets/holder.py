"""The program of edge-llm-sockets.service: hands the listening sockets of systemd to chat APIs.

It never accepts a connection itself, and it has no privilege. While no chat API accepts, because
one is being replaced, connections queue in the kernel. Whoever connects to the Unix socket is sent
the listening sockets at once, and learns by the connection's end that this process is gone. systemd
keeps the sockets then, so that no connection is lost, and starts the program again.

The protocol is that of the container which held the ports in earlier versions, so that chat APIs of
these work with it, too. GREETING alone differs: it has the same length, and those do not read it.
"""

from __future__ import annotations

import array
import os
import selectors
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

from ..errors import ReleaseError
from ..systemd import notify

GREETING = b"kept\n"
"""It says that these sockets outlive this process."""
MOST_PEERS = 32
"""Chat APIs at a time; a further one is sent away. Each takes a file descriptor."""
LOOK_SECONDS = 1.0
"""How often it looks whether its Unix socket is still in its place."""
_FIRST = 3
"""The first file descriptor that systemd passes, by its protocol (sd_listen_fds)."""
_CREDENTIALS = struct.Struct("3i")


def receive_sockets(environ: Mapping[str, str]) -> List[socket.socket]:
    """Return the listening sockets that systemd passed to this process. Raises ReleaseError."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        raise ReleaseError(
            "the sockets of systemd are missing: this program was not started by"
            " edge-llm-sockets.service. Run systemctl start edge-llm-sockets.service"
        )
    sockets = [socket.socket(fileno=_FIRST + index) for index in range(int(count))]
    if not sockets or not all(map(_listens, sockets)):
        raise ReleaseError(
            f"the sockets of systemd do not fit: {sum(map(_listens, sockets))} of {count} listen at"
            " a TCP port. Run site.yml, which writes edge-llm-sockets.socket"
        )
    for each in sockets:
        each.set_inheritable(False)
        # Of all who share it: two may be woken for one connection, and the later must not wait.
        each.setblocking(False)
    return sockets


def _listens(each: socket.socket) -> bool:
    """Whether it is a listening TCP socket."""
    return (
        each.family in (socket.AF_INET, socket.AF_INET6)
        and each.type == socket.SOCK_STREAM
        and bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


class Entrance:
    """The Unix socket that chat APIs connect to, for this user and root alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            if path.is_socket() or path.exists():
                path.unlink()
            self.socket.bind(str(path))
            path.chmod(0o600)  # before it listens: until then nobody can connect
            self.socket.listen(MOST_PEERS)
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self._file = _identify(path)

    @property
    def in_place(self) -> bool:
        """Whether the path still leads to this socket."""
        return _identify(self.path) == self._file

    def close(self) -> None:
        """Close the socket, and remove it from its place, unless another one is there."""
        self.socket.close()
        if self.in_place:
            self.path.unlink()


def _identify(path: Path) -> Optional[Tuple[int, int]]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class Holder:
    """Hands `listeners` to all who connect to the Unix socket at `path`."""

    def __init__(self, path: Path, listeners: List[socket.socket]) -> None:
        self._files = [each.fileno() for each in listeners]
        self._entrance = Entrance(path)
        self._peers = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._entrance.socket, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for key, _ in self._selector.select(LOOK_SECONDS):
                if key.fileobj is self._entrance.socket:
                    self._accept()
                else:
                    self._read(key.data)
            if not self._entrance.in_place:
                self._open_again()

    def close(self) -> None:
        """Remove the Unix socket."""
        self._entrance.close()

    def _open_again(self) -> None:
        """Take the place again: a container of an earlier version, which ends, has removed it."""
        self._selector.unregister(self._entrance.socket)
        self._entrance.close()
        self._entrance = Entrance(self._entrance.path)
        self._selector.register(self._entrance.socket, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            peer, _ = self._entrance.socket.accept()
        except OSError:  # gone already
            return
        if self._peers >= MOST_PEERS or not _is_served(peer):
            peer.close()
            return
        self._peers += 1
        peer.setblocking(False)
        self._selector.register(peer, selectors.EVENT_READ, peer)
        try:
            rights = socket.SCM_RIGHTS, array.array("i", self._files)
            peer.sendmsg([GREETING], [(socket.SOL_SOCKET, *rights)])
        except OSError:  # gone already: its end will be read
            pass

    def _read(self, peer: socket.socket) -> None:
        """Drop what a peer says, none of which counts; forget it at its end."""
        try:
            ended = not peer.recv(1024)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._selector.unregister(peer)
            peer.close()
            self._peers -= 1


def _is_served(peer: socket.socket) -> bool:
    """Whether a peer is root, or this program's own user, as whom chat APIs run."""
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    return user in (0, os.getuid())


def become(user: int) -> None:
    """Give all privileges up: run as the user with this number, and as its group alone."""
    if os.getuid() != user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def main(path: Path, user: int) -> int:
    """Hand the sockets on, as `user`, until SIGTERM or SIGINT.

    Raises ReleaseError where that cannot work.
    """
    become(user)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    listeners = receive_sockets(os.environ)
    try:
        holder = Holder(path, listeners)
    except OSError as error:
        raise ReleaseError(
            f"the socket {path} cannot be made: {error}. Run site.yml, which makes its folder"
        ) from error
    try:
        notify("READY=1")
        holder.run()
    except OSError as error:
        raise ReleaseError(f"the socket {path} cannot be served: {error}. Run site.yml") from error
    finally:
        holder.close()
    return 0
