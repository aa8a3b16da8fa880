"""Who reaches the chat API: the networks that are allowed, and the address at which it listens."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.load import (
    HOST,
    Board,
    board_named,
    known_answers,
    loaded,
    wait_for_requests,
)
from tests.playing import play
from tests.system.boards.neighbour import run_as_neighbour

_ANSWER = known_answers()["smollm2-135m"]
_HEALTH = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/health || true"
# What the chat API sends before it closes the connection; nothing where it refuses the address.
_PROBE = """
import socket, sys
with socket.create_connection((sys.argv[1], 8000), timeout=60) as connection:
    try:
        connection.sendall(b"GET /health HTTP/1.0\\r\\nHost: board\\r\\n\\r\\n")
        print(connection.recv(1000).decode().partition("\\r\\n")[0])
    except ConnectionError:
        print()
"""


def run_site(**variables: object) -> None:
    done = play("site.yml", HOST, **variables)
    assert done.returncode == 0, done.stdout


def local_status(board: Board) -> str:
    """What the chat API answers the board itself at 127.0.0.1; 000 where nothing listens."""
    return board.run("sh", "-c", _HEALTH).strip()


@pytest.fixture(scope="module")
def open_board() -> Iterator[Board]:
    """The board, with a second address; it is as its inventory says at the end."""
    found = board_named(HOST)
    address = f"{second_address(found)}/24"
    found.run("ip", "address", "replace", address, "dev", "eth0")
    yield found
    run_site()
    found.run("ip", "address", "delete", address, "dev", "eth0")
    assert board_named(HOST).url == found.url
    assert found.asked() == _ANSWER


def second_address(board: Board) -> str:
    """An address in the network of the board's clients that no board has."""
    return str(ipaddress.ip_address(urlsplit(board.url).hostname or "") + 200)


def test_other_networks_are_closed_without_a_failed_request(open_board: Board) -> None:
    address = urlsplit(open_board.url)
    with socket.create_connection((address.hostname, address.port), 60) as connection:
        own = connection.getsockname()[0]
    assert run_as_neighbour(HOST, _PROBE) == "HTTP/1.1 200 OK"
    with loaded(open_board, clients=2) as load:
        wait_for_requests(load, 2)
        run_site(llm_allowed_networks=[f"{own}/32"])
        assert run_as_neighbour(HOST, _PROBE) == ""
        assert local_status(open_board) == "200"
        wait_for_requests(load, 2)
    assert load.wrong == []
    assert open_board.history()[-1]["parts"] == ["api"]


def test_the_chat_api_listens_at_one_address(open_board: Board) -> None:
    """What runs when the address changes is answered; connections that come later are refused."""
    address = second_address(open_board)
    assert httpx.get(f"http://{address}:8000/health", timeout=60).status_code == 200
    with loaded(open_board, clients=2) as load:
        wait_for_requests(load, 2)
        run_site(llm_listen_address=address)
        with pytest.raises(httpx.ConnectError, match="refused"):
            httpx.get(f"{open_board.url}/health", timeout=60)
    assert [each for each in load.wrong if "ConnectError" not in each] == []
    assert local_status(open_board) == "000"
    moved = board_named(HOST)
    assert moved.url == f"http://{address}:8000"
    assert moved.asked() == _ANSWER
