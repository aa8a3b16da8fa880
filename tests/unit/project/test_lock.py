"""`make lock`: who gets to see the token."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts import lock

TOKEN = "hf_secret-token-of-a-person"


class Hub:
    """A server of one file, or of a redirect; `tokens` are those that it was sent."""

    def __init__(self, certificate: Path | None, location: str = "") -> None:
        self.location, self.tokens = location, list[str | None]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.tokens.append(self.headers["Authorization"])
                self.send_response(302 if hub.location and self.path == "/file" else 200)
                if hub.location:
                    self.send_header("Location", hub.location)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"file")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake is that of each connection's own thread.
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate with its key, which this process trusts."""
    key, public = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=x -days 2"
    made = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", public)
    subprocess.run(["openssl", *words.split(), *made], capture_output=True, check=True)
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + public.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    monkeypatch.setenv(lock.TOKEN, TOKEN)
    return both


@pytest.fixture
def hubs(certificate: Path) -> Iterator[list[Hub]]:
    """Two, with encryption, and one without."""
    made = [Hub(certificate), Hub(certificate), Hub(None)]
    yield made
    for hub in made:
        hub.server.shutdown()
        hub.server.server_close()


def test_a_host_to_which_the_hub_redirects_sees_no_token(hubs: list[Hub]) -> None:
    hub, elsewhere, _ = hubs
    hub.location = f"{elsewhere.url}/cdn"
    assert lock._content(f"{hub.url}/file") == b"file"
    assert (hub.tokens, elsewhere.tokens) == ([f"Bearer {TOKEN}"], [None])


def test_a_redirect_within_the_hub_keeps_the_token(hubs: list[Hub]) -> None:
    hub, *_ = hubs
    hub.location = "/elsewhere"
    assert lock._content(f"{hub.url}/file") == b"file"
    assert hub.tokens == [f"Bearer {TOKEN}"] * 2


def test_a_redirect_that_leaves_encryption_is_refused(hubs: list[Hub]) -> None:
    hub, _, plain = hubs
    hub.location = f"{plain.url}/cdn"
    with pytest.raises(lock.Unresolved) as caught:
        lock._content(f"{hub.url}/file")
    assert str(caught.value) == (
        f"{hub.url}/file is invalid: it redirects to {plain.url}, which is not encrypted"
    )
    assert plain.tokens == []


def test_a_token_is_not_sent_in_clear(hubs: list[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = hubs[2]
    for ask in (lock._content, lock.head):
        with pytest.raises(lock.Unresolved, match="is not encrypted, and LLM_MODELS_TOKEN would"):
            ask(f"{plain.url}/file")
    assert plain.tokens == []
    monkeypatch.delenv(lock.TOKEN)
    assert lock._content(f"{plain.url}/file") == b"file"
    assert plain.tokens == [None]
