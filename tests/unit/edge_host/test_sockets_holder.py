"""The program that hands the listening sockets of systemd to chat APIs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import API_UID
from edge_host.errors import ReleaseError
from edge_host.sockets import holder as program
from edge_host.sockets.holder import GREETING, MOST_PEERS, receive_sockets
from llm_provider.server import listeners as chat_api
from llm_provider.standalone import socket_holder

from ..llm_provider.fake import until
from .socket_activation import listening, start_program


@dataclass
class Program:
    """The program as a process."""

    path: Path
    process: asyncio.subprocess.Process
    sockets: list[socket.socket]

    async def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        out, err = await asyncio.wait_for(self.process.communicate(), 15)
        assert (self.process.returncode, out, err) == (0, b"", b"")


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[Program]:
    with listening("::") as api, listening() as engine:
        path = tmp_path / "door.sock"
        process = await start_program(path, [api, engine])
        connection, _, given = await ask(path)
        for each in (connection, *given):
            each.close()
        yield Program(path, process, [api, engine])
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ask(path: Path) -> tuple[socket.socket, bytes, list[socket.socket]]:
    """Connect: the connection, the greeting, and the sockets."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)

    def connected() -> bool:
        try:
            connection.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError, BlockingIOError):
            return False  # the last one: as many wait as it has room for
        return True

    await until(connected, "the program")
    said, files, *_ = await asyncio.to_thread(socket.recv_fds, connection, 100, 9)
    return connection, said, [socket.socket(fileno=file) for file in files]


def test_its_protocol_is_that_of_the_chat_api() -> None:
    """The greeting is as long as that of the container of earlier versions, for earlier readers."""
    assert GREETING == chat_api.KEPT
    assert len(GREETING) == len(socket_holder.GREETING)
    assert GREETING != socket_holder.GREETING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_hands_out_the_sockets_of_systemd(holder: Program, number: int) -> None:
    for _ in range(2):  # as often as it is asked
        connection, said, given = await ask(holder.path)
        assert stat.S_IMODE(holder.path.stat().st_mode) == 0o600
        assert said == GREETING
        assert [os.fstat(each.fileno()).st_ino for each in given] == [
            os.fstat(each.fileno()).st_ino for each in holder.sockets
        ]
        assert not any(os.get_blocking(each.fileno()) for each in given)
        for each in given:
            each.close()
    await holder.end(number)
    assert connection.recv(1) == b""
    assert not holder.path.exists()


async def test_connections_survive_the_program(holder: Program, tmp_path: Path) -> None:
    """systemd keeps the sockets: what came meanwhile is for the next program's chat API."""
    holder.process.kill()
    await holder.process.communicate()
    port = holder.sockets[0].getsockname()[1]
    with ExitStack() as stack:
        for host in ("127.0.0.1", "::1"):
            waiting = stack.enter_context(socket.create_connection((host, port), timeout=5))
            waiting.sendall(b"said early")
        # Its socket was left behind.
        process = await start_program(holder.path, holder.sockets)
        connection, _, given = await ask(holder.path)
        for _ in range(2):
            taken, _ = given[0].accept()
            taken.settimeout(5)
            assert taken.recv(100) == b"said early"
            taken.close()
        for each in (connection, *given):
            each.close()
    await Program(holder.path, process, []).end()


async def test_clients_that_misbehave(holder: Program) -> None:
    """Silent ones, many, those that leave before they are served: the next is served."""
    silent = []
    for _ in range(MOST_PEERS - 1):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(holder.path))
        silent.append(peer)
    for _ in range(300):
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.connect(str(holder.path))
            # It may have been sent away already.
            with suppress(BrokenPipeError):
                hasty.send(b"x" * 4096)

    async def served() -> bool:
        connection, said, given = await ask(holder.path)
        for each in (connection, *given):
            each.close()
        return said == GREETING

    for _ in range(400):
        if await served():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("nobody is served any more")
    last = socket.socket(socket.AF_UNIX)
    last.connect(str(holder.path))
    silent.append(last)
    await until(lambda: last.recv(1, socket.MSG_PEEK) == b"k", "the last place")
    connection, said, given = await ask(holder.path)
    assert (said, given) == (b"", [])  # one too many
    connection.close()
    for each in silent:
        each.close()
    await holder.end()


async def test_its_place_is_taken_again(holder: Program) -> None:
    """A container of an earlier version removes the socket when it ends, or puts its own there."""
    holder.path.unlink()
    await until(holder.path.is_socket, "its socket")
    with socket.socket(socket.AF_UNIX) as other:
        holder.path.unlink()
        other.bind(str(holder.path))
        identity = holder.path.stat().st_ino
        await until(
            lambda: holder.path.exists() and holder.path.stat().st_ino != identity, "its socket"
        )
    connection, said, given = await ask(holder.path)
    assert said == GREETING
    for each in (connection, *given):
        each.close()
    await holder.end()


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of the containers' user, which that user reaches."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, API_UID, API_UID)
        Path(folder).chmod(0o711)
        yield Path(folder)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


CONNECT = """
import os, socket, sys
os.setuid(12345)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
connection.connect(sys.argv[1])
print(connection.recv(9))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_it_gives_its_privileges_up(own_folder: Path) -> None:
    path = own_folder / "door.sock"
    with listening() as api, listening() as engine:
        process = await start_program(path, [api, engine], API_UID)
        connection, said, given = await ask(path)  # root is served
        assert said == GREETING
        for each in (connection, *given):
            each.close()
        fields = status_of(process.pid)
        assert fields["Uid"].split() == fields["Gid"].split() == [str(API_UID)] * 4
        assert fields["Groups"].split() == []
        assert {fields[name] for name in ("CapPrm", "CapEff", "CapInh")} == {"0" * 16}
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - others may open it
        other = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CONNECT, str(path)), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(other.communicate(), 60)
        assert out == b"b''\n"  # no other user is
        await Program(path, process, []).end()


async def test_it_tells_systemd_that_it_is_ready(tmp_path: Path) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.settimeout(20)
    told.bind(str(tmp_path / "notify"))
    with listening() as api:
        path = tmp_path / "door.sock"
        process = await start_program(path, [api], NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert await asyncio.to_thread(told.recv, 100) == b"READY=1"
        assert path.is_socket()
        await Program(path, process, []).end()
    told.close()


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "2"}, {"LISTEN_PID": "{own}", "LISTEN_FDS": "two"}],
)
def test_without_systemd(environ: dict[str, str]) -> None:
    given = {name: text.format(own=os.getpid()) for name, text in environ.items()}
    with pytest.raises(ReleaseError) as caught:
        receive_sockets(given)
    assert str(caught.value) == (
        "the sockets of systemd are missing: this program was not started by"
        " edge-llm-sockets.service. Run systemctl start edge-llm-sockets.service"
    )


async def test_sockets_that_do_not_listen(tmp_path: Path) -> None:
    with listening() as api, socket.socket(socket.AF_UNIX) as other:
        process = await start_program(tmp_path / "door.sock", [api, other])
        out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == (
        "edge-llm: the sockets of systemd do not fit: 1 of 2 listen at a TCP port. Run site.yml,"
        " which writes edge-llm-sockets.socket.\n"
    )


async def test_a_place_that_does_not_exist(tmp_path: Path) -> None:
    with listening() as api:
        process = await start_program(tmp_path / "absent/door.sock", [api])
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode() == (
        f"edge-llm: the socket {tmp_path}/absent/door.sock cannot be made: [Errno 2] No such file"
        " or directory. Run site.yml, which makes its folder.\n"
    )


def test_every_user_but_two_is_refused(monkeypatch: Any) -> None:
    """By the kernel's word, whatever the mode of the socket's file."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert program._is_served(ours)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert program._is_served(ours) is (os.geteuid() == 0)
