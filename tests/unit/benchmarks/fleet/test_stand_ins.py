"""Stand-ins of a host: they answer what the host answered, and report what it was never asked."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.fleet import answers, replay

REAL = """#!/bin/sh
for word; do last=$word; done
exec sh -c "$last"
"""
TASK = "mkdir -p ~/.ansible/tmp/ansible-tmp-{}-17-4711 2>/dev/null; cat; echo to-stderr >&2; exit 4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "real").write_text(REAL)
    (tmp_path / "real").chmod(0o755)
    return tmp_path


def ssh(folder: Path, mode: str, *words: str, sent: bytes = b"") -> tuple[int, bytes, bytes]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        f"FLEET_SSH_{mode}": str(folder),
        "FLEET_SSH_REAL": str(folder / "real"),
    }
    done = subprocess.run(
        [replay.STAND_IN, *words], input=sent, capture_output=True, check=False, env=environment
    )
    return done.returncode, done.stdout, done.stderr


def test_ssh_answers_each_host_as_the_real_one_answered(folder: Path) -> None:
    first = ("-o", "User=root", "198.18.41.100", TASK.format("1764.5"))
    second = ("198.18.41.100", "sleep 0.4; printf '\\377'")
    assert ssh(folder, "RECORD", *first, sent=b"a module") == (4, b"a module", b"to-stderr\n")
    ssh(folder, "RECORD", *second)
    for address in ("198.19.0.1", "198.19.0.2"):
        again = ("-o", "User=root", address, TASK.format("1999.25"))
        found = ssh(folder, "ANSWER", *again, sent=b"a module")
        assert found == (4, b"a module", b"to-stderr\n")
        begun = time.monotonic()
        assert ssh(folder, "ANSWER", address, second[1]) == (0, b"\xff", b"")
        # It takes the time that the real host took.
        assert time.monotonic() - begun >= 0.4
    counts, sent = replay.calls_of(folder / "hosts", ["198.19.0.1", "198.19.0.3"])
    assert counts == {"198.19.0.1": 2, "198.19.0.3": 0}
    normalized = len(TASK.format("")) - len("-" + "-17-4711")
    assert sent == normalized + 8 + 8 + len("to-stderr\n") + len(second[1]) + 1


@pytest.mark.parametrize("words", [("198.19.0.1", "reboot"), ("198.19.0.1", "true")])
def test_a_call_that_was_not_recorded_is_reported(folder: Path, words: tuple[str, str]) -> None:
    """Another command, and one call more than there were."""
    ssh(folder, "RECORD", "198.18.41.100", "true")
    if words[1] == "true":
        assert ssh(folder, "ANSWER", *words)[0] == 0
    number = 1 if words[1] == "reboot" else 2
    assert ssh(folder, "ANSWER", *words) == (
        1, b"", f"The answer to call {number} is missing: {words[1]}. Record again.\n".encode(),
    )  # fmt: skip


def test_ansible_may_ask_what_ssh_can_do(folder: Path) -> None:
    assert ssh(folder, "ANSWER", "-o", "ControlPersist") == (0, b"", b"")
    assert ssh(folder, "ANSWER", "-O", "stop", "198.19.0.1") == (0, b"", b"")


class Board(BaseHTTPRequestHandler):
    """A chat API that streams two pieces, to those who have its key."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer the-key":
            self.send_error(401)
            return
        self.send_response(200)
        self.send_header("X-Model", "smoke")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"one", b"two"):
            self.wfile.write(b"3\r\n%b\r\n" % piece)
            self.wfile.flush()
            time.sleep(0.2)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def board() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Board)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def post(url: str, key: str | None, body: str) -> tuple[int, str | None, list[bytes]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    pieces = []
    while piece := answer.read1(100):
        pieces.append(piece)
    connection.close()
    return answer.status, answer.getheader("X-Model"), pieces


def test_the_chat_api_s_answers_are_replayed(board: str) -> None:
    recording = answers.Recording("the-key")
    body = json.dumps({"stream": True})
    streamed = (200, "smoke", [b"one", b"two"])
    with answers.serving(recording, upstream=board) as url:
        assert post(url, "the-key", body) == streamed
        assert post(url, None, body)[0] == 401
        assert post(url, "a-wrong-key-of-today", body)[0] == 401
    with answers.serving(recording) as url:
        begun = time.monotonic()
        assert post(url, "the-key", body) == streamed
        assert time.monotonic() - begun >= 0.2
        assert post(url, None, body)[0] == 401
        # A wrong key is made up anew for every check.
        assert post(url, "another-wrong-key", body)[0] == 401
        status, _, pieces = post(url, "the-key", "{}")
        assert status == 501
        assert b"".join(pieces) == (
            b"The answer to POST /v1/chat/completions is missing. Record again."
        )
