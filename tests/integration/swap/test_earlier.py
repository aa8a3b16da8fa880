"""What clients notice on hosts of earlier versions, whose engine and chat API have addresses in a
network of Docker, while a container publishes the ports: a pause at most, in both directions.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import (
    API_UID,
    DEFAULT_NETWORK,
    DOOR,
    NETWORK,
    PLAIN_KEYS,
    SOCKETS_UNIT,
)
from tests.integration.load import FOLDER, Board, board_named, known_answers, loaded
from tests.playing import play, restart
from tests.system.hosts.test_host import FILES
from tests.waiting import until

HOST = "jetson-01"
_SWAPS = ["beside", "one-by-one"]
_ANSWER = known_answers()["smollm2-135m"]


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    found = board_named(HOST)
    assert play("site.yml", HOST).returncode == 0
    script = Path(__file__).with_name("earlier.py")
    # Where a restart leaves it.
    subprocess.run(["docker", "cp", script, f"test-{HOST}:/root/earlier.py"], check=True)
    yield found
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout


def go_back(board: Board, swap: str) -> dict[str, Any]:
    """Switch to a release of an earlier version: what became of it."""
    done = subprocess.run(
        ["docker", "exec", "--interactive", f"test-{HOST}", "python3", "/root/earlier.py", swap],
        input=f"{board.key}\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def access(board: Board, *paths: str) -> list[tuple[int, int, int]]:
    """Owner, group and mode of files of the deployment."""
    words = ["stat", "-L", "-c", "%u %g %a", *(f"{FOLDER}/{path}" for path in paths)]
    found = [line.split() for line in board.run(*words).splitlines()]
    return [(int(owner), int(group), int(mode, 8)) for owner, group, mode in found]


def downloads(board: Board) -> list[str]:
    """What downloads have left."""
    return board.run("find", f"{FOLDER}/models", "-path", "*/.fetch/*").splitlines()


def networks(board: Board) -> list[str]:
    return board.run("docker", "network", "ls", "--format", "{{.Name}}").splitlines()


def holds(board: Board) -> bool:
    """Whether systemd has the ports."""
    return "active" in board.run("sh", "-c", f"systemctl is-active {SOCKETS_UNIT} || true").split()


@pytest.mark.parametrize("swap", _SWAPS)
def test_clients_notice_a_pause_at_most(board: Board, swap: str) -> None:
    """Nor do they notice that users, and owners of what is theirs, are those of this version."""
    with loaded(board) as load:
        result = go_back(board, swap)
        assert result["outcome"] == "committed", result
        assert not {DOOR, NETWORK} & set(board.containers())
        assert DEFAULT_NETWORK in networks(board)
        assert access(board, "secrets", "secrets/engine_key") == [
            (API_UID, API_UID, 0o700),
            (API_UID, API_UID, 0o600),
        ]
        assert [each for each in downloads(board) if each.endswith(".aria2")]
        done = play("site.yml", HOST, stack_swap=swap)
        assert done.returncode == 0, done.stdout
    assert load.wrong == []
    assert NETWORK in board.containers()
    assert DEFAULT_NETWORK not in networks(board)
    assert holds(board)
    wanted = {path: (owner, group, mode) for path, _, owner, group, mode in FILES}
    assert dict(zip(wanted, access(board, *wanted), strict=True)) == wanted
    assert downloads(board) == []
    # The host can go back to the release that reads it.
    assert access(board, f"secrets/{PLAIN_KEYS}") == [(0, API_UID, 0o640)]


@pytest.mark.parametrize("swap", _SWAPS)
def test_a_host_is_upgraded_and_booted(board: Board, swap: str) -> None:
    assert go_back(board, swap)["outcome"] == "committed"
    board.run("python3", "/root/earlier.py", "door")
    until(board.ready, "readiness", lambda report: report["ready"], ignored=(Exception,))
    with loaded(board) as load:
        done = play("site.yml", HOST, stack_swap=swap)
        assert done.returncode == 0, done.stdout
    assert load.wrong == []
    assert {DOOR, NETWORK} <= set(board.containers())
    assert not holds(board)
    done = play("site.yml", HOST)
    assert "changed=0" in done.stdout
    restart("reboot", HOST)
    until(board.asked, "the answer", lambda said: said == _ANSWER, ignored=(Exception,))
    until(lambda: networks(board), "its end", lambda found: DEFAULT_NETWORK not in found)
    assert DOOR not in board.run("docker", "ps", "--all", "--format", "{{.Names}}").split()
    assert holds(board)
    done = play("site.yml", HOST)
    assert "changed=0" in done.stdout
