"""Clients' keys on a host: the key by which it asks its own chat API; keys in plain text."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.client_keys import key_files, own_key
from edge_host.constants import CLIENT_KEYS, PLAIN_KEYS
from edge_host.host_info.deployment import needs_plain_keys
from edge_host.release.chat_api import ChatApi
from edge_host.release.client_keys import own_key_headers, remove_plain_keys
from edge_host.release.store import Release

MAIN = "the-main-key-of-the-host"
FILES = key_files(["another-key-of-a-client"], MAIN, "pi", "2026-11-30T10:00:00Z")
OWN = {"x-api-key": own_key(MAIN, "pi")}
PLAIN = {"Authorization": f"Bearer {MAIN}"}
EARLIER = """\
services:
  api-a:
    environment:
      CHAT_API_SOCKET: /run/edge-llm/api-a.sock
      CHAT_API_KEYS_FILE: /run/secrets/api_keys
      LLM_ENGINE_FILE: /run/engine/engine.env
"""
NOW = EARLIER.replace("api_keys", "api_keys.jsonl")


def write_keys(root: Path, *names: str) -> None:
    (root / "secrets").mkdir(exist_ok=True)
    for name in names:
        (root / "secrets" / name).write_text(FILES[name])


def add_release(root: Path, number: int, compose: str) -> Path:
    folder = root / f"releases/{number:04d}"
    folder.mkdir(parents=True)
    (folder / "docker-compose.yml").write_text(compose)
    return folder


@pytest.mark.parametrize(
    ("names", "headers"),
    [
        ((), {}),
        ((CLIENT_KEYS,), OWN),
        ((PLAIN_KEYS,), PLAIN),
        # Either version of the chat API may be asked, and accepts one of both.
        ((CLIENT_KEYS, PLAIN_KEYS), OWN | PLAIN),
    ],
)
def test_headers_that_the_hosts_chat_api_accepts(
    tmp_path: Path, names: tuple[str, ...], headers: dict[str, str]
) -> None:
    write_keys(tmp_path, *names)
    assert own_key_headers(tmp_path) == headers


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[dict[str, str]]]:
    """The headers of requests to a chat API at its socket, which answers each."""
    found: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.append({name.lower(): value for name, value in self.headers.items()})
            body = json.dumps({"in_flight": 0}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

        def address_string(self) -> str:
            return "the host"

    (tmp_path / "run").mkdir()
    with UnixServer(str(tmp_path / "run/api-a.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_the_host_asks_its_chat_api_with_its_own_key(
    tmp_path: Path, asked: list[dict[str, str]]
) -> None:
    write_keys(tmp_path, CLIENT_KEYS)
    release = Release(tmp_path, {"slots": {"engine": "a", "api": "a"}})
    assert ChatApi(tmp_path).read_status(release) == {"in_flight": 0}
    assert asked[0]["x-api-key"] == OWN["x-api-key"]
    assert "authorization" not in asked[0]


def test_without_keys_there_is_no_status_and_no_failure(tmp_path: Path) -> None:
    release = Release(tmp_path, {"slots": {"engine": "a", "api": "a"}})
    assert ChatApi(tmp_path).read_status(release) is None


def test_any_release_of_an_earlier_version_needs_keys_in_plain_text(tmp_path: Path) -> None:
    assert not needs_plain_keys(tmp_path)
    add_release(tmp_path, 2, NOW)
    assert not needs_plain_keys(tmp_path)
    (tmp_path / "releases/0003").mkdir()  # one that is not complete
    assert not needs_plain_keys(tmp_path)
    add_release(tmp_path, 1, EARLIER)
    assert needs_plain_keys(tmp_path)


def test_keys_in_plain_text_go_with_the_last_release_that_needs_them(tmp_path: Path) -> None:
    write_keys(tmp_path, CLIENT_KEYS, PLAIN_KEYS)
    folder = add_release(tmp_path, 1, EARLIER)
    remove_plain_keys(tmp_path)
    assert (tmp_path / "secrets" / PLAIN_KEYS).exists()
    (folder / "docker-compose.yml").write_text(NOW)
    remove_plain_keys(tmp_path)
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == [CLIENT_KEYS]
    remove_plain_keys(tmp_path)
