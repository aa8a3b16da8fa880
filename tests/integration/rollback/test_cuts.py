"""A change that is cut short, at any of its steps: the host serves, and the next run converges."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from module_utils.edge_llm_release import STEPS
from tests.integration.load import FOLDER, Board, board_named
from tests.integration.rollback.cutting import (
    UNIT,
    assert_whole,
    change,
    kill,
    reached,
    two_releases,
    until,
)
from tests.playing import ENVIRONMENT, ROOT, command, play, restart

HOST = "jetson-01"


@pytest.fixture(scope="module")
def board() -> Board:
    found = board_named(HOST)
    two_releases(found, before="ollama")
    return found


@pytest.mark.parametrize("swap", ["beside", "one-by-one"])
@pytest.mark.parametrize("step", STEPS)
def test_a_change_that_is_killed_is_undone_or_ended(board: Board, step: str, swap: str) -> None:
    if not change(board, step, swap):
        return
    kill(board)
    idle = "inactive"
    until(
        lambda: idle in board.run("sh", "-c", f"systemctl is-active {UNIT} || true"),
        "the end of the change",
    )
    assert_whole(board)
    told = board.history()[-1]
    if step not in ("begin",):  # where nothing had begun, nothing is undone
        assert told["action"] == "recover"
        assert told["reason"].endswith(f"was cut short at: {step}")


@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_leaves_a_host_that_serves(board: Board, step: str) -> None:
    if not change(board, step, "one-by-one"):
        return
    restart("power-cut", board.name)
    assert_whole(board)


def test_a_run_that_is_killed_goes_on_by_itself(board: Board) -> None:
    """The control machine goes away in the midst of a change: the host does not need it."""
    seen = len(board.history())
    # A context of its own, else there were no change where the cuts have left the board with it.
    given = {"llm_provider": "llamacpp", "llm_context_size": 1024}
    run = subprocess.Popen(
        command("site.yml", HOST, **given, stack_swap="one-by-one"),
        cwd=ROOT, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: "change.json" in board.run("ls", FOLDER), "the change")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    until(lambda: len(board.history()) > seen, "the end of the change")
    assert board.history()[-1]["outcome"] == "committed"
    assert board.ready()["context_size"] == 1024
    until(lambda: "change.json" not in board.run("ls", FOLDER), "its last step")


def test_every_step_was_cut() -> None:
    assert reached["beside"] | reached["one-by-one"] == set(STEPS)


def test_the_next_run_converges(board: Board) -> None:
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert board.ready()["provider"] == "llamacpp"
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
