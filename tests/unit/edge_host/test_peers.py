"""Ranges between hosts, over real connections: who is served, and what is believed."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_host.download import peer_server
from edge_host.download.peer_client import Peer, PeerClient, Timing
from edge_host.download.peer_server import MAX_RANGE, MAX_STRANGERS, request_path
from edge_host.download.peer_tls import client_context
from edge_host.download.peers import _program
from tests.unit.edge_host.peers import QUICK, SHA256, credentials, parsed, peer, saying, serving
from tests.waiting import until

CONTENT = bytes(range(256)) * 4096  # a MiB
SIZE = len(CONTENT)
PATH = request_path(SHA256)


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return credentials()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    return path


def request(
    port: int, context: ssl.SSLContext, path: str = PATH, server: str = "host-0", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """The answer to one request: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    plain = socket.create_connection(("127.0.0.1", port), 10)
    connection.sock = context.wrap_socket(plain, server_hostname=server)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


# --- the server ----------------------------------------------------------------------------------


@pytest.fixture
def server(made: dict[str, dict[str, Any]], file: Path) -> Iterator[peer_server.PeerServer]:
    with serving(made, file, SIZE, ["host-1", "host-2"], "host-0") as served:
        yield served


@pytest.mark.parametrize("start", [0, 1, SIZE // 2, SIZE - 1])
def test_the_rest_of_a_file_is_served(
    server: peer_server.PeerServer, made: dict[str, dict[str, Any]], start: int
) -> None:
    context = client_context(parsed(made, "host-1"))
    status, headers, body = request(server.port, context, Range=f"bytes={start}-")
    assert (status, body) == (206, CONTENT[start:])
    assert headers["Content-Range"] == f"bytes {start}-{SIZE - 1}/{SIZE}"
    assert "Python" not in headers["Server"]


def test_an_answer_is_short(made: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """So that a client soon knows that a server is alive."""
    path = tmp_path / "large"
    size = 3 * MAX_RANGE
    with path.open("wb") as stream:
        stream.truncate(size)
    with serving(made, path, size, ["host-1"], "host-0") as server:
        context = client_context(parsed(made, "host-1"))
        status, headers, body = request(server.port, context, Range="bytes=7-")
    assert (status, len(body)) == (206, MAX_RANGE)
    assert headers["Content-Range"] == f"bytes 7-{MAX_RANGE + 6}/{size}"


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/", "bytes=0-", 404),
        (request_path("b" * 64), "bytes=0-", 404),
        ("/m.gguf", "bytes=0-", 404),
        (f"{PATH}/../../../etc/passwd", "bytes=0-", 404),
        (f"{PATH}?x", "bytes=0-", 404),
        (PATH, "", 416),
        (PATH, "bytes=-5", 416),
        (PATH, "bytes=0-5", 416),
        (PATH, "bytes=0-,7-", 416),
        (PATH, f"bytes={SIZE}-", 416),
        (PATH, f"bytes={10**30}-", 416),
    ],
)
def test_nothing_but_the_planned_files_is_served(
    server: peer_server.PeerServer,
    made: dict[str, dict[str, Any]],
    path: str,
    asked: str,
    status: int,
) -> None:
    context = client_context(parsed(made, "host-1"))
    assert request(server.port, context, path, Range=asked)[::2] == (status, b"")


def test_bytes_that_are_not_there_yet_are_waited_for(
    made: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The file is at first missing, then grows, and gets its final name in the end."""
    path, part = tmp_path / "m.gguf", tmp_path / "m.gguf.part"
    context = client_context(parsed(made, "host-1"))
    with serving(made, path, SIZE, ["host-1"], "host-0") as server:
        assert request(server.port, context, Range="bytes=0-")[::2] == (503, b"")
        for start, end, name in ((0, 10, part), (10, 1000, part), (1000, SIZE, part)):
            timer = threading.Timer(0.1, _append, (name, CONTENT[start:end]))
            timer.start()
            status, _, body = request(
                server.port, context, Range=f"bytes={start}-", Prefer="wait=5"
            )
            assert status == 206
            assert CONTENT[start:end].startswith(body) and body
            timer.join()
        part.rename(path)
        assert request(server.port, context, Range="bytes=0-")[2] == CONTENT


def _append(path: Path, block: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(block)


def test_the_wait_has_an_end(
    made: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_server, "MAX_WAIT", 0.2)
    context = client_context(parsed(made, "host-1"))
    with serving(made, tmp_path / "none", SIZE, ["host-1"], "host-0") as server:
        answer = request(server.port, context, Range="bytes=0-", Prefer="wait=999")
    assert answer[::2] == (503, b"")


def test_a_foreign_certificate_gets_no_byte(
    server: peer_server.PeerServer, made: dict[str, dict[str, Any]]
) -> None:
    """Of another authority, though with a planned name; and none at all."""
    foreign = credentials()
    with_own = client_context(parsed(foreign, "host-1"))
    with_own.load_verify_locations(cadata=made["host-0"]["authority"])
    without = ssl.create_default_context(cadata=made["host-0"]["authority"])
    for context in (with_own, without):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            request(server.port, context, Range="bytes=0-")


def test_a_host_that_is_not_planned_as_the_next_gets_no_byte(
    server: peer_server.PeerServer, made: dict[str, dict[str, Any]]
) -> None:
    """It takes part in the same distribution, at another place."""
    for name in ("host-0", "host-3"):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            request(server.port, client_context(parsed(made, name)), Range="bytes=0-")


def test_a_certificate_is_valid_for_a_day(file: Path) -> None:
    old = credentials(now=datetime.now(UTC) - timedelta(hours=25))
    with serving(old, file, SIZE, ["host-1"], "host-0") as server:
        context = client_context(parsed(old, "host-1"))
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            request(server.port, context, Range="bytes=0-")


def test_without_tls_nothing_is_said(server: peer_server.PeerServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nRange: bytes=0-\r\n\r\n".encode())
        try:
            said = connection.recv(1000)
        except ConnectionError:
            said = b""
    # An alert of TLS at most.
    assert said[:1] in (b"", b"\x15")
    assert len(said) < 20


def test_those_who_say_nothing_keep_nobody_out(
    server: peer_server.PeerServer, made: dict[str, dict[str, Any]]
) -> None:
    with ExitStack() as silent:
        for _ in range(2 * MAX_STRANGERS):
            silent.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
        context = client_context(parsed(made, "host-1"))
        assert request(server.port, context, Range="bytes=0-")[0] == 206
        until(
            lambda: len(server._strangers),
            "the end of those that are too many",
            lambda number: number <= MAX_STRANGERS,
        )


def test_a_connection_for_which_there_is_no_thread_ends_no_other(
    server: peer_server.PeerServer, made: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once may take all that the unit may have."""
    start, refused = threading.Thread.start, list[threading.Thread]()

    def start_but_one(thread: threading.Thread) -> None:
        if not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_but_one)
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        assert connection.recv(1) == b""
    context = client_context(parsed(made, "host-1"))
    assert request(server.port, context, Range="bytes=0-")[0] == 206


def test_the_number_of_connections_is_limited(
    server: peer_server.PeerServer, made: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_server, "MAX_CLIENTS", 1)
    context = client_context(parsed(made, "host-1"))
    plain = socket.create_connection(("127.0.0.1", server.port), 10)
    with context.wrap_socket(plain, server_hostname="host-0"):
        until(lambda: len(server._connected), "the first", lambda number: number == 1)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            request(server.port, context, Range="bytes=0-")


def test_a_server_ends_its_connections(made: dict[str, dict[str, Any]], file: Path) -> None:
    context = client_context(parsed(made, "host-1"))
    with serving(made, file, SIZE, ["host-1"], "host-0") as server:
        plain = socket.create_connection(("127.0.0.1", server.port), 10)
        connection = context.wrap_socket(plain, server_hostname="host-0")
        until(lambda: len(server._connected), "the connection", lambda number: number == 1)
    assert connection.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 10)


# --- the client ----------------------------------------------------------------------------------


class Reader:
    """A client, what it has read, and from whom."""

    def __init__(
        self, made: dict[str, dict[str, Any]], *peers: Peer, timing: Timing = QUICK
    ) -> None:
        self.content = b""
        self.sources: list[str] = []
        context = client_context(parsed(made, "host-3"))
        self._client = PeerClient(list(peers), context, self._write, self.sources.append, timing)

    def _write(self, block: bytes) -> None:
        self.content += block

    def read(self, start: int = 0, size: int = SIZE) -> list[str]:
        self.content = CONTENT[:start]
        return self._client.read(SHA256, start, size)


@pytest.mark.parametrize("start", [0, 12345, SIZE - 1])
def test_the_nearest_host_is_read_from(
    made: dict[str, dict[str, Any]], file: Path, start: int
) -> None:
    with (
        serving(made, file, SIZE, ["host-3"], "host-2") as near,
        serving(made, file, SIZE, ["host-3"], "host-1") as far,
    ):
        reader = Reader(made, peer(2, near.port), peer(1, far.port), timing=Timing())
        assert reader.read(start) == []
    assert reader.content == CONTENT
    assert reader.sources == ["board-2"]


def test_a_file_that_grows_is_read_to_its_end(
    made: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf.part"

    def grow() -> None:
        for start in range(0, SIZE, SIZE // 16):
            time.sleep(0.02)
            _append(path, CONTENT[start : start + SIZE // 16])

    with serving(made, tmp_path / "m.gguf", SIZE, ["host-3"], "host-2") as near:
        growing = threading.Thread(target=grow)
        growing.start()
        reader = Reader(made, peer(2, near.port), timing=Timing())
        assert reader.read() == []
        growing.join()
    assert reader.content == CONTENT


def test_who_does_not_answer_is_replaced(made: dict[str, dict[str, Any]], file: Path) -> None:
    with serving(made, file, SIZE, ["host-3"], "host-1") as far:
        reader = Reader(made, peer(2, _closed_port()), peer(1, far.port), timing=Timing())
        assert reader.read() == []
    assert (reader.content, reader.sources) == (CONTENT, ["board-1"])


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_who_has_less_is_left_out_for_a_while(
    made: dict[str, dict[str, Any]], file: Path, tmp_path: Path
) -> None:
    """After an interruption a host may have more than the one before it."""
    less = tmp_path / "less"
    less.mkdir()
    (less / "m.gguf.part").write_bytes(CONTENT[:10])
    with (
        serving(made, less / "m.gguf", SIZE, ["host-3"], "host-2") as near,
        serving(made, file, SIZE, ["host-3"], "host-1") as far,
    ):
        reader = Reader(made, peer(2, near.port), peer(1, far.port))
        assert reader.read(SIZE // 2) == []
    assert (reader.content, reader.sources) == (CONTENT, ["board-1"])


def test_nobody_answers(made: dict[str, dict[str, Any]]) -> None:
    reader = Reader(made, peer(2, _closed_port()), peer(1, _closed_port()))
    assert reader.read() == [
        "board-2 did not answer (Connection refused)",
        "board-1 did not answer (Connection refused)",
    ]


def test_nobody_has_more(made: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """They answer, and the download has an end all the same."""
    (tmp_path / "m.gguf.part").write_bytes(CONTENT[:1000])
    with serving(made, tmp_path / "m.gguf", SIZE, ["host-3"], "host-2") as near:
        reader = Reader(made, peer(2, near.port))
        assert reader.read() == ["board-2 has no more of the file"]
    assert reader.content == CONTENT[:1000]


def test_who_says_at_once_that_it_has_nothing_is_not_asked_without_a_pause(
    made: dict[str, dict[str, Any]],
) -> None:
    asked: list[bytes] = []

    def nothing(connection: ssl.SSLSocket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")

    with saying(made, "host-2", nothing) as port:
        reader = Reader(made, peer(2, port))
        assert reader.read() == ["board-2 has no more of the file"]
    assert 2 <= len(asked) <= QUICK.stall / QUICK.retry + 2


def test_who_has_not_the_planned_certificate_is_not_read_from(
    made: dict[str, dict[str, Any]], file: Path
) -> None:
    """Another host of the same distribution at that address, and one with a foreign certificate."""
    foreign = credentials()
    with (
        serving(made, file, SIZE, ["host-3"], "host-0") as other,
        serving(foreign, file, SIZE, ["host-3"], "host-1") as stranger,
    ):
        reader = Reader(made, peer(2, other.port), peer(1, stranger.port))
        reasons = reader.read()
    assert reader.content == b""
    assert reasons[0].startswith("board-2 has not the planned certificate (Hostname mismatch")
    assert reasons[1].startswith("board-1 has not the planned certificate (self-signed")


def answers(text: str, body: bytes = b"") -> Callable[[ssl.SSLSocket, bytes], None]:
    """A host that always says the same."""
    content = text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body

    def answer(connection: ssl.SSLSocket, _: bytes) -> None:
        connection.sendall(content)

    return answer


def trickling(connection: ssl.SSLSocket, _: bytes) -> None:
    """A header that never ends."""
    while True:
        connection.sendall(b"H")
        time.sleep(0.05)


RANGE = f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answers("HTTP/1.1 200 OK\nContent-Length: 5", b"12345"), "status 200, which does not fit"),
        (answers("HTTP/1.1 404 \x1b[2J\nContent-Length: 0"), "status 404, which does not fit"),
        (answers("HTTP/1.1 206 x\nContent-Length: 5", b"12345"), "status 206, which does not fit"),
        (
            answers(
                f"HTTP/1.1 206 x\nContent-Range: bytes 5-9/{SIZE}\nContent-Length: 5", b"12345"
            ),
            "status 206, which does not fit",
        ),
        (
            answers(f"HTTP/1.1 206 x\nContent-Range: bytes 0-4/{SIZE + 1}\nContent-Length: 5"),
            "status 206, which does not fit",
        ),
        (answers(f"HTTP/1.1 206 x\n{RANGE}\nContent-Length: 0"), "with a length that does not fit"),
        (
            answers(f"HTTP/1.1 206 x\n{RANGE}\nContent-Length: {SIZE + 1}", CONTENT),
            "with a length that does not fit",
        ),
        (
            answers(f"HTTP/1.1 206 x\n{RANGE}\nTransfer-Encoding: chunked", b"fffff\r\n"),
            "with a length that does not fit",
        ),
        (
            answers("HTTP/1.1 503 x\nContent-Length: 99999999", b"x"),
            "status 503, which does not fit",
        ),
        (answers("SSH-2.0-\x1b[2J"), "did not answer (BadStatusLine)"),
        (answers("HTTP/1.1 206 x\n" + "a: b\n" * 200), "did not answer (HTTPException)"),
        (answers("HTTP/1.1 206 " + "x" * 100_000), "did not answer (LineTooLong)"),
        (trickling, "did not answer (LineTooLong)"),
    ],
)
def test_an_answer_that_does_not_fit(
    made: dict[str, dict[str, Any]], answer: Callable[..., None], reason: str
) -> None:
    """Nothing of it is written, and none of its words are in the reason."""
    with saying(made, "host-2", answer) as port:
        reader = Reader(made, peer(2, port))
        (said,) = reader.read()
    assert reader.content == b""
    assert said.isprintable()
    if answer is trickling:
        assert said.startswith("board-2 did not answer (")
    else:
        assert said.endswith(reason)


def test_who_is_slow_is_replaced(made: dict[str, dict[str, Any]], file: Path) -> None:
    """It says that it has all, and sends a byte now and then: what it sent stays."""

    def slow(connection: ssl.SSLSocket, _: bytes) -> None:
        connection.sendall(f"HTTP/1.1 206 x\r\n{RANGE}\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        for byte in CONTENT:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    with (
        saying(made, "host-2", slow) as port,
        serving(made, file, SIZE, ["host-3"], "host-1") as far,
    ):
        reader = Reader(made, peer(2, port), peer(1, far.port))
        assert reader.read() == []
        assert (reader.content, reader.sources) == (CONTENT, ["board-2", "board-1"])
        reader = Reader(made, peer(2, port))
        (reason,) = reader.read()
    assert reason.startswith("board-2 sent ") and reason.endswith("which is too slow")


def test_who_breaks_off_is_asked_for_the_rest(made: dict[str, dict[str, Any]]) -> None:
    """Each time it sends less than it says, so the client goes on at the byte where it was."""

    def cut(connection: ssl.SSLSocket, request: bytes) -> None:
        start = int(request.split(b"bytes=")[1].split(b"-")[0])
        connection.sendall(
            f"HTTP/1.1 206 x\r\nContent-Range: bytes {start}-{SIZE - 1}/{SIZE}\r\n"
            f"Content-Length: {SIZE - start}\r\n\r\n".encode()
        )
        connection.sendall(CONTENT[start : start + SIZE // 4])
        connection.shutdown(socket.SHUT_RDWR)

    with saying(made, "host-2", cut) as port:
        reader = Reader(made, peer(2, port))
        assert reader.read() == []
    assert reader.content == CONTENT


# --- the programs --------------------------------------------------------------------------------


def test_a_server_whose_port_is_in_use_says_so(made: dict[str, dict[str, Any]]) -> None:
    with socket.create_server(("", 0)) as used:
        port = used.getsockname()[1]
        data = {"port": port, "clients": [], "files": [], "credentials": made["host-0"]}
        done = subprocess.run(
            _program("peer_server"), input=json.dumps(data) + "\n", capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (
        1,
        f"port {port} cannot be used: Address already in use (while attempting to bind on address"
        f" ('', {port}))\n",
    )


def test_a_server_ends_with_the_program_that_started_it(
    made: dict[str, dict[str, Any]],
) -> None:
    port = _closed_port()
    data = {"port": port, "clients": ["host-1"], "files": [], "credentials": made["host-0"]}
    with subprocess.Popen(
        _program("peer_server"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(data).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("limit", ["IDLE_TIMEOUT", "LIFETIME"])
def test_a_server_ends_by_itself(made: dict[str, dict[str, Any]], limit: str) -> None:
    program = _program("peer_server")
    words = f"from edge_host.download import peer_server; peer_server.{limit} = 0.1; "
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {program[4]!r}); {words}"
               "sys.exit(peer_server.main())"]  # fmt: skip
    data = {"port": 0, "clients": ["host-1"], "files": [], "credentials": made["host-0"]}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(data).encode() + b"\n")
        process.stdin.flush()
        assert process.wait(30) == 0


def test_the_client_writes_the_file_to_its_output(
    made: dict[str, dict[str, Any]], file: Path
) -> None:
    with serving(made, file, SIZE, ["host-3"], "host-2") as near:
        data: dict[str, Any] = {
            **{"peers": [peer(2, near.port)._asdict()], "credentials": made["host-3"]},
            **{"sha256": SHA256, "start": 5, "size": SIZE, "timing": QUICK._asdict()},
        }
        done = subprocess.run(
            _program("peer_client"), input=json.dumps(data).encode() + b"\n",
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, CONTENT[5:])
    assert [json.loads(line) for line in done.stderr.splitlines()] == [{"from": "board-2"}]
    done = subprocess.run(
        _program("peer_client"), input=json.dumps(data).encode() + b"\n",
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")
    assert [json.loads(line) for line in done.stderr.splitlines()] == [
        {"failed": ["board-2 did not answer (Connection refused)"]}
    ]
