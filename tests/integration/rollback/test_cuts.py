"""A change that is cut short, at any of its steps: the host serves, and the next run converges.

The cuts that depend on how fast things happen can be repeated, while busy processes compete for the
CPUs; the result of each is appended to a table:

    export SANDBOX=test
    python -m sandbox up && ansible-playbook -i inventories/sandbox site.yml --limit jetson-01
    REPEAT=13 TABLE=cuts.tsv pytest tests/integration/rollback/test_cuts.py -k again

Each repetition is four cuts: of a change and of a recovery, with both kinds of swap.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_host.release.steps import Step
from edge_host.unit_files.recovery import SERVICE
from tests.integration.load import FOLDER, Board, board_named, known_answers
from tests.integration.rollback.cutting import (
    UNIT,
    assert_whole,
    busy,
    change,
    kill,
    reached,
    reached_step,
    recovered,
    recovery_that_stops_at,
    served,
    two_releases,
)
from tests.playing import ENVIRONMENT, ROOT, command, play, restart
from tests.waiting import until

HOST = "jetson-01"
STEPS = [step.value for step in Step]
REPEAT = int(os.environ.get("REPEAT", "1"))
TABLE = os.environ.get("TABLE")


@pytest.fixture(scope="module")
def board() -> Board:
    found = board_named(HOST)
    two_releases(found, before="ollama")
    return found


@pytest.mark.parametrize("swap", ["beside", "one-by-one"])
@pytest.mark.parametrize("step", STEPS)
def test_a_change_that_is_killed_is_recovered(board: Board, step: str, swap: str) -> None:
    if not change(board, step, swap):
        return
    kill(board)
    assert_whole(board)
    entry = board.history()[-1]
    if step not in ("begin",):  # where nothing had begun, nothing is undone
        assert entry["action"] == "recover"
        assert entry["reason"].endswith(f"was interrupted at: {step}")


@pytest.fixture(scope="module")
def competed() -> Iterator[None]:
    """The CPUs of this machine are busy, where cuts are repeated."""
    with busy((os.cpu_count() or 1) if REPEAT > 1 else 0):
        yield


@pytest.mark.parametrize("swap", ["beside", "one-by-one"])
@pytest.mark.parametrize("killed", ["change", "recovery"])
@pytest.mark.parametrize("repetition", range(REPEAT))
def test_a_kill_at_the_commit_again_and_again(
    board: Board, competed: None, killed: str, swap: str, repetition: int
) -> None:
    """Of the change alone, or of its recovery too, while that waits for a chat API to end."""
    assert change(board, "commit", swap)
    if killed == "recovery":
        with recovery_that_stops_at(board, "wait"):
            kill(board)
            until(lambda: reached_step(board), "the recovery's wait", lambda step: step == "wait")
            assert "LLM_HOLD" in board.run("cat", f"{FOLDER}/engine/engine.env")
    begun = time.monotonic()
    # systemd starts a recovery again that was killed.
    kill(board, SERVICE if killed == "recovery" else f"{UNIT}.service")
    outcome = "failed"
    try:
        recovered(board)
        undone = time.monotonic() - begun
        served(board)
        ready = time.monotonic() - begun
        assert_whole(board)
        entry = board.history()[-1]
        assert entry["reason"].endswith("was interrupted at: commit")
        outcome = entry["outcome"]
        assert outcome == "restored"
    finally:
        if outcome == "failed":
            undone = ready = time.monotonic() - begun
        row = f"{repetition}\t{killed}\t{swap}\t{outcome}\t{undone:.1f}\t{ready:.1f}"
        print(f"repetition, killed, swap, outcome, recovered (s), ready (s): {row}")
        if TABLE:
            with Path(TABLE).open("a") as table:
                table.write(f"{row}\n")


_LOCKED = """
import pathlib
from llm_provider.server.hold_lock import HoldLock
hold_lock = HoldLock(pathlib.Path("/run/engine/engine.env"))
print(hold_lock.locked())
"""


def test_a_hold_ends_without_a_recovery(board: Board) -> None:
    """Clients are served by the engine that is there, not held for the time of a change."""
    assert change(board, "drain", "one-by-one", undo="/bin/true")
    until(board.ready, "the hold", lambda report: report["holding"])
    # The chat API sees the lock, as a user of its own and in a container.
    api = f"edge-llm-api-{board.current()['slots']['api']}"
    assert board.run("docker", "exec", api, "python", "-c", _LOCKED).strip() == "True"
    begun = time.monotonic()
    kill(board)
    served(board)
    assert time.monotonic() - begun < 60
    assert board.asked() == known_answers()["smollm2-135m"]
    assert "LLM_HOLD=" in board.run("cat", f"{FOLDER}/engine/engine.env")
    board.run("systemctl", "restart", SERVICE)
    assert_whole(board)


@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_leaves_a_host_that_serves(board: Board, step: str) -> None:
    if not change(board, step, "one-by-one"):
        return
    restart("power-cut", board.name)
    assert_whole(board)


def test_a_change_continues_when_its_run_is_killed(board: Board) -> None:
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
        until(lambda: board.run("ls", FOLDER), "the change", lambda said: "change.json" in said)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    until(board.history, "the end of the change", lambda lines: len(lines) > seen)
    assert board.history()[-1]["outcome"] == "committed"
    assert board.ready()["context_size"] == 1024
    until(lambda: board.run("ls", FOLDER), "its last step", lambda said: "change.json" not in said)


def test_every_step_was_interrupted() -> None:
    assert reached["beside"] | reached["one-by-one"] == set(STEPS)


def test_the_next_run_converges(board: Board) -> None:
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert board.ready()["provider"] == "llamacpp"
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
