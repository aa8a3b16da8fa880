"""The socket holder as a process of its own: it hands its sockets to who connects."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_provider.standalone.socket_holder import MOST_PEERS

from ..fake import free_port, until
from ..server.handing_over import HolderProcess, end, start_holder
from ..server.processes import MIB, peak_memory


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[HolderProcess]:
    ports = free_port(), free_port()
    process = await start_holder(tmp_path / "door.sock", *ports)
    made = HolderProcess(tmp_path, process, ports)
    await until(made.path.exists, "the socket holder")
    yield made
    if process.returncode is None:
        await end(process)


async def greeted(path: Path) -> tuple[socket.socket, bytes, list[socket.socket]]:
    """A connection to the socket holder, what it said, and the sockets that it gave."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)

    def connected() -> bool:
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:  # it is there, and does not listen yet
            return False
        return True

    await until(connected, "the door")

    def ask() -> tuple[bytes, list[int]]:
        said, files, *_ = socket.recv_fds(connection, 100, 9)
        return said, files

    said, files = await asyncio.to_thread(ask)
    return connection, said, [socket.socket(fileno=file) for file in files]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_socket_holder_hands_out_its_sockets(tmp_path: Path, number: int) -> None:
    ports = [free_port(), free_port()]
    path = tmp_path / "door.sock"
    path.write_text("left behind")
    process = await start_holder(path, *ports)
    await until(path.is_socket, "the socket holder")
    held = []
    for _ in range(2):  # as often as it is asked
        connection, said, given = await greeted(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert said == b"door\n"
        assert [each.getsockname() for each in given] == [("0.0.0.0", port) for port in ports]
        assert all(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for each in given)
        assert not any(os.get_blocking(each.fileno()) for each in given)
        for each in given:
            each.close()
        held.append(connection)
    held[0].close()
    held[1].settimeout(0.3)
    with pytest.raises(TimeoutError):
        held[1].recv(1)  # it stays open, whoever else leaves
    held[1].send(b"what is said to it does not count")
    with pytest.raises(TimeoutError):
        held[1].recv(1)
    assert await end(process, number) == b""
    assert held[1].recv(1) == b""
    held[1].close()
    assert not path.exists()


async def test_connections_wait_where_nobody_takes_them(holder: HolderProcess) -> None:
    """They are not refused, and they are for whoever comes next."""
    with socket.create_connection(("127.0.0.1", holder.ports[0]), timeout=5) as waiting:
        waiting.sendall(b"said early")
        for leaves in (True, False):
            connection, _, (listener, other) = await greeted(holder.path)
            if not leaves:
                taken, _ = listener.accept()
                assert taken.recv(100) == b"said early"
                taken.close()
            for each in (connection, listener, other):
                each.close()


async def test_the_peers_of_a_socket_holder_are_bounded(holder: HolderProcess) -> None:
    """More than any host has chat APIs; those there are stay, and an end makes room."""
    peers = []
    for _ in range(MOST_PEERS):
        connection, said, given = await greeted(holder.path)
        assert said == b"door\n"
        for each in given:
            each.close()
        peers.append(connection)
    connection, said, given = await greeted(holder.path)
    assert (said, given) == (b"", [])
    connection.close()
    peers[0].close()

    async def welcome() -> bool:
        connection, said, given = await greeted(holder.path)
        for each in (connection, *given):
            each.close()
        return said == b"door\n"

    for _ in range(200):
        if await welcome():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("an end made no room")
    peers[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        peers[1].recv(1)
    for each in peers[1:]:
        each.close()
    assert peak_memory(holder.process.pid) < 24 * MIB


async def test_a_socket_holder_whose_port_is_taken(holder: HolderProcess, tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    process = await start_holder(path, free_port(), holder.ports[0])
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == (
        f"The port {holder.ports[0]} cannot be listened on: [Errno 98] Address already in use.\n"
    )
    assert not path.exists()


async def test_a_socket_holder_that_cannot_be_asked(tmp_path: Path) -> None:
    process = await start_holder(tmp_path / "absent" / "door.sock", free_port())
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"The socket ")
    assert err.endswith(b"cannot be made: [Errno 2] No such file or directory.\n")
