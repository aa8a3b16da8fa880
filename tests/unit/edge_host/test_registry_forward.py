"""The program that passes connections of the fleet to the registry."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edge_host
from edge_host.registry import forward
from edge_host.registry.forward import RegistryForward, become, normalise
from tests.unit.edge_host.fake_registry import FakeRegistry, registry

__all__ = ["registry"]

PACKAGES = Path(edge_host.__file__).parents[1]
# As systemd starts a program: with the listening socket as descriptor 3, and its own number.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    " os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
    f" sys.path.insert(0, {str(PACKAGES)!r});"
    " from edge_host.cli import main; sys.exit(main(['registry', *sys.argv[2:]]))"
)


class Program:
    """The program with a port of this machine's loopback; it has told systemd that it is ready."""

    def __init__(self, folder: Path, path: Path, *addresses: str, family: int = socket.AF_INET):
        self.host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        with (
            socket.socket(family) as listener,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        ):
            listener.bind((self.host, 0))
            listener.listen()
            self.port: int = listener.getsockname()[1]
            systemd.bind(str(folder / "notify"))
            systemd.settimeout(60)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(listener.fileno()), str(os.getuid()), path,
                 *addresses],
                pass_fds=[listener.fileno()],
                env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
                stderr=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            assert systemd.recv(100) == b"READY=1"

    def ask(self, path: str = "/v2/", source: str = "") -> int:
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout=30, source_address=(source, 0) if source else None
        )
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def end(self) -> str:
        """End the program; what it has said."""
        self.process.terminate()
        return self.process.communicate(timeout=60)[1]


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path, registry: FakeRegistry) -> Iterator[Start]:
    started: list[Program] = []

    def make(*addresses: str, family: int = socket.AF_INET) -> Program:
        started.append(Program(tmp_path, registry.path, *addresses, family=family))
        return started[-1]

    yield make
    for each in started:
        if each.process.poll() is None:
            each.end()


def test_connections_of_the_fleet_are_passed_on(registry: FakeRegistry, start: Start) -> None:
    program = start("192.0.2.12", "127.0.0.2")
    assert program.ask(source="127.0.0.2") == 200
    assert registry.asked == [("GET", "/v2/")]


def test_connections_of_others_are_ended(registry: FakeRegistry, start: Start) -> None:
    program = start("192.0.2.12", "127.0.0.2")
    for _ in range(3):
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            program.ask(source="127.0.0.3")
    # The positive control, after the refusals.
    assert program.ask(source="127.0.0.2") == 200
    assert registry.asked == [("GET", "/v2/")]
    # Once, whoever comes how often.
    assert program.end() == (
        "A connection from 127.0.0.3 was refused: it is no address of the fleet's hosts that pull"
        " images in this run.\n"
    )


def test_addresses_of_ipv6(start: Start) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert start("0:0:0:0:0:0:0:1", family=socket.AF_INET6).ask() == 200


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::ffff:192.0.2.12", "192.0.2.12"),
        ("192.0.2.12", "192.0.2.12"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_one_form_for_each_address(text: str, address: str) -> None:
    assert normalise(text) == address


def test_long_answers_and_uploads_pass_whole(tmp_path: Path, start: Start) -> None:
    """Bytes of both ways, more than any buffer holds, with an end that the client sees."""
    program = start("127.0.0.1")
    (tmp_path / "registry.sock").unlink()
    content = os.urandom(3 * 1024 * 1024)
    with socket.socket(socket.AF_UNIX) as registry:
        registry.bind(str(tmp_path / "registry.sock"))
        registry.listen()
        with socket.create_connection(("127.0.0.1", program.port), 30) as client:
            inner, _ = registry.accept()
            inner.settimeout(30)
            client.sendall(b"request")
            assert inner.recv(100) == b"request"
            with inner:

                def send(peer: socket.socket = inner) -> None:
                    peer.sendall(content)
                    peer.shutdown(socket.SHUT_RDWR)

                sender = threading.Thread(target=send)
                sender.start()
                found = b""
                while block := client.recv(65536):
                    found += block
                sender.join()
    assert found == content


def test_a_client_that_ends_takes_no_connection_of_the_registry(
    tmp_path: Path, start: Start
) -> None:
    program = start("127.0.0.1")
    (tmp_path / "registry.sock").unlink()
    with socket.socket(socket.AF_UNIX) as registry:
        registry.bind(str(tmp_path / "registry.sock"))
        registry.listen()
        with socket.create_connection(("127.0.0.1", program.port), 30):
            inner, _ = registry.accept()
        with inner:
            inner.settimeout(30)
            assert inner.recv(100) == b""


def test_a_registry_that_is_gone(registry: FakeRegistry, start: Start) -> None:
    program = start("127.0.0.1")
    registry.stop()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        program.ask()
    assert f"The registry at {registry.path} does not answer: " in program.end()


def test_one_host_cannot_take_all_connections(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_OF_A_HOST", 2)
    monkeypatch.setattr(forward, "MOST_CONNECTIONS", 3)
    found = RegistryForward(str(registry.path), ["192.0.2.11", "192.0.2.12", "192.0.2.13"])
    found.open.update({"192.0.2.11": 2})
    assert found._refusal("192.0.2.11") == "there are too many connections"
    assert found._refusal("192.0.2.12") is None
    found.open.update({"192.0.2.12": 1})
    assert found._refusal("192.0.2.13") == "there are too many connections"


def test_connections_that_ended_are_not_counted(registry: FakeRegistry, start: Start) -> None:
    program = start("127.0.0.1")
    for _ in range(forward.MOST_OF_A_HOST + 10):
        deadline = time.monotonic() + 30
        while True:  # the end of the one before is noticed a moment later
            try:
                assert program.ask() == 200
                break
            except (http.client.RemoteDisconnected, ConnectionResetError):
                assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("variables", "addresses", "found"),
    [
        ({}, ["127.0.0.1"], "systemd has handed over no socket"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, ["127.0.0.1"], "systemd has handed over no sock"),
        ({}, ["kitchen"], "'kitchen' does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    addresses: list[str],
    found: str,
) -> None:
    for name in ("LISTEN_FDS", "LISTEN_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert forward.main([str(os.getuid()), "/none.sock", *addresses]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"The forward to the registry cannot start: {found}")
    assert said.endswith(" Run site.yml, which starts edge-llm-registry.socket.\n")


def test_it_gives_privileges_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups first: another user could not."""
    calls: list[tuple[str, object]] = []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *value, name=name: calls.append((name, value)))
    become(10013)
    users = (10013, 10013, 10013)
    assert calls == [("setgroups", ([],)), ("setresgid", users), ("setresuid", users)]
