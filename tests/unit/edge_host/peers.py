"""Hosts of one distribution, for tests: certificates, and servers that behave as they are told."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_fleet.distribution_certificates import distribution_credentials
from edge_host.download.peer_client import Peer, Timing
from edge_host.download.peer_server import PeerServer, ServedFile, request_path
from edge_host.download.peer_tls import Credentials, parse_credentials, server_context

SHA256 = "a" * 64
# Limits of tests: what has to be waited for there is soon over.
QUICK = Timing(
    first_contact=1.0, lost_contact=1.0, stall=2.0, wait=1, connect=1.0, read=1.0, slow=0.2,
    retry=0.05, behind=0.2, leave_out=5.0,
)  # fmt: skip


def credentials(
    count: int = 5, now: datetime | None = None, **more: Any
) -> dict[str, dict[str, Any]]:
    """Credentials of host-0 and so on, all of one distribution."""
    jobs = {
        f"host-{number}": {
            "m": {
                **{"identity": f"host-{number}", "distribution": "m/0", "predecessors": ["x"]},
                **{"successors": []},
            }
        }
        for number in range(count)
    }
    made = distribution_credentials({"jobs": jobs, "control": {}}, now or datetime.now(UTC))
    return {name: some["m"] | more for name, some in made["jobs"].items()}


def parsed(made: dict[str, dict[str, Any]], name: str) -> Credentials:
    return parse_credentials(made[name])


def peer(number: int, port: int, name: str = "") -> Peer:
    return Peer(name or f"board-{number}", "127.0.0.1", port, f"host-{number}")


@contextmanager
def serving(
    made: dict[str, dict[str, Any]], path: Path, size: int, clients: list[str], identity: str
) -> Iterator[PeerServer]:
    """A host that serves a file, which may still grow."""
    files = {request_path(SHA256): ServedFile(size, (f"{path}.part", str(path)))}
    context = server_context(parsed(made, identity))
    server = PeerServer(context, 0, clients, files, host="127.0.0.1")
    try:
        yield server
    finally:
        server.close()


@contextmanager
def saying(
    made: dict[str, dict[str, Any]], identity: str, answer: Callable[[ssl.SSLSocket, bytes], None]
) -> Iterator[int]:
    """The port of a host with a planned certificate that answers each request as it likes."""
    context = server_context(parsed(made, identity))
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as encrypted:
                while request := _head(encrypted):
                    answer(encrypted, request)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _head(connection: ssl.SSLSocket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        byte = connection.recv(4096)
        if not byte:
            return b""
        found += byte
    return found
