"""An HTTP server that records what a chat API answers, and then answers in its place.

So a verification of hundreds of hosts takes the control machine's time alone.
"""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE = 65536
_NOT_PASSED_ON = {
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
}


@dataclass(frozen=True)
class Request:
    """What tells one request from another; keys count by who has them, not by what they are."""

    method: str
    path: str
    key: str
    body: str


@dataclass(frozen=True)
class Answer:
    """What was answered, and the seconds after the request at which each piece came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    streamed: bool
    pieces: tuple[tuple[float, bytes], ...]


@dataclass
class Recording:
    """The answers of one host, whose clients have the key `key`."""

    key: str = field(repr=False)
    answers: dict[Request, Answer] = field(default_factory=dict)

    def request(self, method: str, path: str, authorization: str | None, body: bytes) -> Request:
        """The request as it is looked up."""
        kind = "none" if authorization is None else "another"
        if authorization == f"Bearer {self.key}":
            kind = "valid"
        return Request(method, path, kind, hashlib.sha256(body).hexdigest())


@contextmanager
def serving(recording: Recording, upstream: str | None = None) -> Iterator[str]:
    """A server on this machine while the context lasts; gives its URL.

    With `upstream` (ADDRESS:PORT) it passes requests on and records; without, it answers what it
    has, after the time that the host took, and 501 to other requests.
    """

    class Handler(_Handler):
        kept = recording
        host = upstream

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept: Recording
    host: str | None

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no news."""

    def _answer(self) -> None:
        begun = time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = self.kept.request(
            self.command, self.path, self.headers.get("Authorization"), body
        )
        if self.host is not None:
            self.kept.answers[request] = self._ask(self.host, body)
        answer = self.kept.answers.get(request)
        if answer is None:
            text = f"The answer to {self.command} {self.path} is missing. Record again.".encode()
            answer = Answer(501, (), False, ((0.0, text),))
        self._send(answer, begun)

    def _ask(self, host: str, body: bytes) -> Answer:
        headers = {
            name: value for name, value in self.headers.items()
            if name.lower() not in _NOT_PASSED_ON | {"host"}
        }  # fmt: skip
        connection = http.client.HTTPConnection(host, timeout=120)
        begun = time.monotonic()
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            pieces = []
            while piece := answer.read1(_PIECE):
                pieces.append((time.monotonic() - begun, piece))
            kept = tuple(
                each for each in answer.getheaders() if each[0].lower() not in _NOT_PASSED_ON
            )
            return Answer(answer.status, kept, answer.chunked, tuple(pieces))
        finally:
            connection.close()

    def _send(self, answer: Answer, begun: float) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.streamed:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(sum(len(piece) for _, piece in answer.pieces)))
        self.end_headers()
        for after, piece in answer.pieces:
            if self.host is None:
                time.sleep(max(0.0, after - (time.monotonic() - begun)))
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.streamed else piece)
            self.wfile.flush()
        if answer.streamed:
            self.wfile.write(b"0\r\n\r\n")
