"""The socket holder: keeps the host's listening sockets, and hands them to the chat API.

    python socket_holder.py --socket /run/edge-llm/door.sock 8000 11434

It never accepts a connection itself. While no chat API does, because one is being replaced,
connections queue here, in the kernel, instead of being refused. Whoever connects to --socket is
sent the listening sockets at once, and learns by the connection's end that this process is gone.

It is a script, run by itself beside the chat API's container: the standard library alone.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

BACKLOG = 1024
GREETING = b"door\n"
MOST_PEERS = 32
"""Chat APIs at a time; a further one is sent away. Each takes a file descriptor."""


def listen(port: int) -> socket.socket:
    """Open a listening socket on every IPv4 address. Raises OSError where the port is in use."""
    opened = socket.socket()
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("0.0.0.0", port))  # noqa: S104 - it serves the network
        opened.listen(BACKLOG)
        # Of all who share it: two may be woken for one connection, and the later must not wait.
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def listen_at(path: Path) -> socket.socket:
    """Open a listening Unix socket for this user alone, in place of one that was left behind."""
    opened = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        opened.bind(str(path))
        path.chmod(0o600)  # before it listens: until then nobody can connect
        opened.listen()
    except OSError:
        opened.close()
        raise
    return opened


def serve(entrance: socket.socket, listeners: list[socket.socket]) -> None:
    """Hand `listeners` to whoever connects to `entrance`, and keep those connections, for ever."""
    files = [each.fileno() for each in listeners]
    entrance.setblocking(False)
    peers = 0
    with selectors.DefaultSelector() as selector:
        selector.register(entrance, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is entrance:
                    try:
                        peer, _ = entrance.accept()
                    except OSError:  # gone already, or the system has none left: it comes again
                        continue
                    if peers >= MOST_PEERS:
                        peer.close()
                        continue
                    peers += 1
                    peer.setblocking(False)
                    selector.register(peer, selectors.EVENT_READ, peer)
                    with suppress(OSError):  # gone already: its end will be read
                        socket.send_fds(peer, [GREETING], files)
                    continue
                peer = key.data
                try:
                    ended = not peer.recv(1024)  # nothing that it says counts
                except OSError:
                    ended = True
                if ended:
                    selector.unregister(peer)
                    peer.close()
                    peers -= 1


def main(argv: list[str] | None = None) -> int:
    """Hold the ports until SIGTERM or SIGINT. Exit status 1: one of them is not available."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--socket", type=Path, required=True, help="where chat APIs get them")
    parser.add_argument("ports", type=int, nargs="+", metavar="PORT")
    arguments = parser.parse_args(argv)
    path: Path = arguments.socket
    with ExitStack() as held:
        listeners = []
        for port in arguments.ports:
            try:
                listeners.append(held.enter_context(listen(port)))
            except (OSError, OverflowError) as error:
                print(f"The port {port} cannot be listened on: {error}.", file=sys.stderr)
                return 1
        try:
            entrance = held.enter_context(listen_at(path))
        except OSError as error:
            print(f"The socket {path} cannot be made: {error}.", file=sys.stderr)
            return 1
        held.callback(path.unlink, missing_ok=True)
        serve(entrance, listeners)
    return 0


if __name__ == "__main__":
    sys.exit(main())
