"""What clients notice of a change: a pause at most, where one engine stops before the other starts.

And what is no change, or somebody's hand; who may change a host; and the ways to another release
than the inventory's.
"""

from __future__ import annotations

import httpx
import pytest

from edge_host.constants import NETWORK, SOCKETS_UNIT
from tests.integration.load import (
    FOLDER,
    Board,
    assert_a_pause_at_most,
    board_named,
    known_answers,
    loaded,
)
from tests.playing import message, play
from tests.waiting import until

# Its inventory has llama.cpp and SmolLM2.
HOST = "jetson-01"
_OLLAMA = {"llm_provider": "ollama"}


@pytest.fixture(scope="module")
def board() -> Board:
    return board_named(HOST)


def test_clients_notice_a_pause_at_most(board: Board, settled: None) -> None:
    changes = [
        (_OLLAMA, ["engine"]),
        (_OLLAMA | {"llm_model": "smoke"}, ["engine"]),
        ({}, ["engine"]),
    ]
    assert_a_pause_at_most(board, "one-by-one", changes)


def test_a_run_without_differences_changes_nothing(board: Board) -> None:
    before = board.containers(), board.history()
    done = play("site.yml", HOST, a_variable_of_somebody_else="a comment")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    assert (board.containers(), board.history()) == before


def test_edited_files_are_restored_without_a_restart(board: Board) -> None:
    before = board.containers()
    board.run("sh", "-c", f"echo '# by hand' >> {FOLDER}/docker-compose.yml")
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert "by hand" not in board.run("cat", f"{FOLDER}/docker-compose.yml")
    assert board.containers() == before
    assert board.history()[-1]["parts"] == []


@pytest.mark.parametrize("part", ["engine", "api", "network"])
def test_stopped_containers_are_started_again(board: Board, part: str) -> None:
    slots = board.current()["slots"]
    name = f"edge-llm-{part}" + (f"-{slots[part]}" if part in slots else "")
    board.run("docker", "rm", "--force", name)
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert board.asked() == known_answers()["smollm2-135m"]


def test_ports_that_nobody_holds_are_held_again(board: Board) -> None:
    service = SOCKETS_UNIT.replace(".socket", ".service")
    board.run("systemctl", "stop", SOCKETS_UNIT, service)
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert board.asked() == known_answers()["smollm2-135m"]


def test_a_lost_namespace_is_made_again_by_hand(board: Board) -> None:
    """Engine and chat API are created anew for it, after it."""
    before = board.containers()
    board.run("docker", "rm", "--force", NETWORK)
    board.run("sh", "-c", f"cd {FOLDER} && docker compose up --detach")
    after = board.containers()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    until(
        board.asked,
        "the known answer",
        lambda answer: answer == known_answers()["smollm2-135m"],
        ignored=(httpx.HTTPError, AssertionError),
    )
    done = play("site.yml", HOST)
    assert "changed=0" in done.stdout


def test_a_second_operator_sees_who_holds_the_lock(board: Board) -> None:
    hold = (
        "import fcntl, json, time; f = open('/opt/edge-llm/.lock', 'a+');"
        " fcntl.flock(f, fcntl.LOCK_EX); f.truncate(0);"
        " json.dump({'by': 'alice@laptop', 'since': '2026-11-22T10:00:00Z'}, f);"
        " f.flush(); time.sleep(900)"
    )
    board.run(
        "sh", "-c", f'nohup python3 -c "{hold}" >/dev/null 2>&1 & echo $! > /run/holder; sleep 1'
    )
    done = play("site.yml", HOST, **_OLLAMA)
    assert done.returncode == 2, done.stdout
    assert (
        "jetson-01: the host is locked: alice@laptop has been changing it since"
        " 2026-11-22T10:00:00Z. Run this again when that change has ended."
    ) in message(done)
    assert "changed=0" in done.stdout
    # Its holder dies, and what it has written stays: that is no lock.
    board.run("sh", "-c", "kill -9 $(cat /run/holder); sleep 0.5")
    assert "alice" in board.run("cat", f"{FOLDER}/.lock")
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout


def test_rollback_to_the_previous_release_and_to_a_numbered_one(
    board: Board, settled: None
) -> None:
    first = board.current()["number"]
    assert play("site.yml", HOST, **_OLLAMA).returncode == 0
    with loaded(board) as load:
        done = play("playbooks/rollback.yml", HOST)
        assert done.returncode == 0, done.stdout
        assert board.ready()["provider"] == "llamacpp"
        assert board.current()["as"] == first
        done = play("playbooks/rollback.yml", HOST, release=board.current()["number"] - 1)
        assert done.returncode == 0, done.stdout
        assert board.ready()["provider"] == "ollama"
    assert load.wrong == []
    done = play("playbooks/rollback.yml", HOST, rollback_release=4711)
    assert done.returncode == 2
    assert "jetson-01: release 4711 is missing on the host: it has the releases" in message(done)
    done = play("playbooks/history.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert f"as release {first}" in message(done)
