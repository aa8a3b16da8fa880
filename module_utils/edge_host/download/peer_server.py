"""The program that serves the files of one distribution to the planned next hosts.

It runs as the downloader's user, without privileges: it reads files that anybody on the host may
read, and writes none. A file may still be arriving: a request for bytes that are not there yet
waits for some seconds, and is then answered with status 503, after which the client asks again.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import re
import select
import socket
import ssl
import sys
import threading
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ..constants import MIB
from .peer_tls import parse_credentials, peer_names, server_context

MAX_RANGE = 4 * MIB
"""Bytes of one answer at most: a short answer shows soon that the server is alive."""
MAX_WAIT = 5.0
"""Seconds that a request waits for bytes at most."""
HANDSHAKE_TIMEOUT = 10.0
REQUEST_TIMEOUT = 60.0
IDLE_TIMEOUT = 900.0
"""Seconds without a request of a planned host, after which the program ends by itself."""
LIFETIME = 24 * 3600.0
"""Seconds after which the program ends in any case, as the certificates do."""
MAX_STRANGERS = 32
"""Connections at the same time that have not shown a certificate yet."""
MAX_CLIENTS = 16
"""Connections at the same time of planned hosts, which need one each."""
_GROWTH_PAUSE = 0.02
_BLOCK = 256 * 1024


class ServedFile(NamedTuple):
    """A file by its size and the paths where it may be, the unfinished one first."""

    size: int
    paths: Tuple[str, ...]

    def open(self) -> Optional[int]:
        """Return a descriptor of the file; None where it is not there."""
        for path in self.paths:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
        return None


def request_path(sha256: str) -> str:
    """Return the path at which a file is requested: its content decides."""
    return f"/sha256/{sha256}"


class PeerServer:
    """Listens at a port, on all addresses of the host.

    `clients`: the names of the planned next hosts; `files`: by the path of a request. Raises
    OSError where the port cannot be used.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        port: int,
        clients: List[str],
        files: Mapping[str, ServedFile],
        host: str = "",
    ) -> None:
        self.files = files
        self.used_at = time.monotonic()
        self._context = context
        self._clients = frozenset(clients)
        self._strangers: List[ssl.SSLSocket] = []
        self._connected: List[ssl.SSLSocket] = []
        self._lock = threading.Lock()
        if host or not socket.has_dualstack_ipv6():
            self._socket = socket.create_server((host, port))
        else:
            self._socket = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and end all connections."""
        with self._lock:
            for each in (self._socket, *self._strangers, *self._connected):
                end_connection(each)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EBADF):  # it has been closed
                    return
                time.sleep(0.1)  # no descriptor is free, or the other side has gone
                continue
            try:
                arguments = connection, address
                threading.Thread(target=self._serve, args=arguments, daemon=True).start()
            except RuntimeError:  # the unit has as many threads as it may have
                connection.close()
                time.sleep(0.1)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            connection.settimeout(HANDSHAKE_TIMEOUT)
            encrypted = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        except OSError:
            connection.close()
            return
        with self._lock:
            self._strangers.append(encrypted)
            if len(self._strangers) > MAX_STRANGERS:
                # Who connects last shall not be kept out by those who say nothing.
                end_connection(self._strangers.pop(0))
        try:
            # The timeout counts for the whole handshake.
            encrypted.do_handshake()
            if self._admit(encrypted):
                _Handler(encrypted, address, self)  # type: ignore[arg-type]
        except (OSError, ValueError):
            pass  # the other side has gone, or is none of those that are planned
        finally:
            with self._lock:
                for some in (self._strangers, self._connected):
                    if encrypted in some:
                        some.remove(encrypted)
            end_connection(encrypted)
            encrypted.close()

    def _admit(self, connection: ssl.SSLSocket) -> bool:
        """Whether the other side is a planned host, and may send requests."""
        with self._lock:
            if connection not in self._strangers:  # it has been ended
                return False
            self._strangers.remove(connection)
            if peer_names(connection).isdisjoint(self._clients):
                return False
            if len(self._connected) >= MAX_CLIENTS:
                return False
            self._connected.append(connection)
            return True


def end_connection(connection: socket.socket) -> None:
    """End a connection: whoever waits for it in another thread goes on at once, and closes it."""
    with contextlib.suppress(OSError):
        # Not that of SSLSocket, which takes the state from the thread that uses it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edge-llm", ""
    timeout = REQUEST_TIMEOUT
    server: PeerServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        self.server.used_at = time.monotonic()
        file = self.server.files.get(self.path)
        asked = re.fullmatch(r"bytes=(\d{1,18})-", self.headers.get("Range", ""))
        if file is None:
            self._refuse(404)
        elif asked is None or int(asked[1]) >= file.size:
            self._refuse(416)
        else:
            self._send(file, int(asked[1]))

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, file: ServedFile, start: int) -> None:
        asked = re.fullmatch(r"wait=(\d{1,3})", self.headers.get("Prefer", ""))
        end = time.monotonic() + (min(float(asked[1]), MAX_WAIT) if asked else 0)
        descriptor = file.open()
        try:
            while _available(file, descriptor) <= start and time.monotonic() < end:
                time.sleep(_GROWTH_PAUSE)
                if descriptor is None:
                    descriptor = file.open()
            available = _available(file, descriptor)
            if descriptor is None or available <= start:
                self._refuse(503)
                return
            length = min(available - start, MAX_RANGE)
            self.send_response(206)
            self.send_header("Content-Length", str(length))
            self.send_header("Content-Range", f"bytes {start}-{start + length - 1}/{file.size}")
            self.end_headers()
            while length:
                block = os.pread(descriptor, min(length, _BLOCK), start)
                if not block:  # it has been rejected, and begins anew
                    self.close_connection = True
                    return
                self.wfile.write(block)
                start, length = start + len(block), length - len(block)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def log_message(self, *_: Any) -> None:
        pass


def _available(file: ServedFile, descriptor: Optional[int]) -> int:
    return 0 if descriptor is None else min(file.size, os.fstat(descriptor).st_size)


def main() -> int:
    """Serve what standard input says, in one line of JSON, until that is closed.

    port; clients: names of the next hosts; files: {sha256, size, paths} each; credentials. Prints
    `ready` once the port is open, else why it is not.
    """
    data = json.loads(sys.stdin.buffer.readline())
    files: Dict[str, ServedFile] = {
        request_path(str(each["sha256"])): ServedFile(
            int(each["size"]), tuple(map(str, each["paths"]))
        )
        for each in data["files"]
    }
    context = server_context(parse_credentials(data["credentials"]))
    try:
        server = PeerServer(context, int(data["port"]), list(data["clients"]), files)
    except OSError as error:
        print(f"port {data['port']} cannot be used: {error.strerror}", flush=True)
        return 1
    print("ready", flush=True)
    begun_at = time.monotonic()
    while time.monotonic() - begun_at < LIFETIME:
        if time.monotonic() - server.used_at > IDLE_TIMEOUT:
            break
        if select.select([0], [], [], 1.0)[0]:
            break  # whoever started this program has ended
    server.close()
    return 0
