"""A registry on a Unix socket that verifies what is uploaded, as the real one does."""

from __future__ import annotations

import hashlib
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class FakeRegistry:
    """A registry with `manifests` and `blobs` by repository and digest.

    `status` is its answer to everything, unless 0; `asked` has method and path of each request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.status = 0
        self.asked: list[tuple[str, str]] = []
        self.accepted: list[str] = []
        self.server: socketserver.BaseServer | None = None

    def start(self) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, **headers: str) -> None:
                self.send_response(registry.status or status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def serve(self) -> None:
                registry.asked.append((self.command, self.path))
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if "Accept" in self.headers:
                    registry.accepted.append(self.headers["Accept"])
                status, headers = registry.answer(
                    self.command, self.path, self.headers.get("Content-Type", ""), body
                )
                self.answer(status, **headers)

            do_GET = do_HEAD = do_POST = do_PUT = serve

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: Any) -> None:
                pass

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.server = Server(str(self.path), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def answer(
        self, method: str, target: str, kind: str, body: bytes
    ) -> tuple[int, dict[str, str]]:
        path = urlsplit(target).path
        if path == "/v2/":
            return 200, {}
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/", path):
            # As the real one does: an absolute address, with a state.
            return 202, {"Location": f"http://localhost/v2/{match[1]}/blobs/uploads/7?_state=s"}
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/7", path):
            query = parse_qs(urlsplit(target).query)
            if query["_state"] != ["s"] or digest_of(body) != query["digest"][0]:
                return 400, {}
            self.blobs[match[1], query["digest"][0]] = body
            return 201, {}
        if match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path):
            return (200 if (match[1], match[2]) in self.blobs else 404), {}
        if match := re.fullmatch(r"/v2/(.+)/manifests/(sha256:\w+)", path):
            repository, digest = match.groups()
            if method != "PUT":
                return (200 if (repository, digest) in self.manifests else 404), {}
            if digest_of(body) != digest or not self._complete(repository, body):
                return 400, {}
            self.manifests[repository, digest] = (kind, body)
            return 201, {}
        return 404, {}

    def _complete(self, repository: str, manifest: bytes) -> bool:
        """Whether what a manifest names is here."""
        found = json.loads(manifest)
        images = {each["digest"] for each in found.get("manifests", [])}
        blobs = {
            each["digest"]
            for each in [*found.get("layers", []), *filter(None, [found.get("config")])]
            if not each.get("urls")
        }
        return images <= {digest for where, digest in self.manifests if where == repository} and (
            blobs <= {digest for where, digest in self.blobs if where == repository}
        )


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    made = FakeRegistry(tmp_path / "registry.sock")
    made.start()
    yield made
    made.stop()
