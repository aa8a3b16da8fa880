"""A change that is cut short, at any of its steps: the host serves, and the next run converges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from module_utils.edge_llm_release import RESTORE_STEPS, STEPS
from tests.playing import ENVIRONMENT, ROOT, command, play
from tests.swap.conftest import FOLDER, Board, board_named, known_answers

# Not the board of the other tests, which run beside these.
HOST = "jetson-01"
UNIT = "edge-llm-change"
CAME_TO = "/run/edge-llm-test"
PYTHON = "/usr/bin/python3"
_SECONDS = 180
reached: dict[str, set[str]] = {"beside": set(), "one-by-one": set()}


def until(condition: object, what: str) -> None:
    """Wait until a condition holds; fails where it does not in time."""
    assert callable(condition)
    end = time.monotonic() + _SECONDS
    while True:
        try:
            if condition():
                return
        except (AssertionError, httpx.HTTPError):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, f"{what} did not come within {_SECONDS} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def board() -> Board:
    return board_named(HOST)


@pytest.fixture(scope="module", autouse=True)
def two_releases(board: Board) -> None:
    """The board has a release before its own: Ollama before llama.cpp."""
    for given in ({"llm_provider": "ollama"}, {}):
        done = play("site.yml", HOST, **given)
        assert done.returncode == 0, done.stdout
    script = Path(__file__).with_name("driver.py")
    # Where a restart leaves it.
    subprocess.run(["docker", "cp", script, f"test-{HOST}:/root/driver.py"], check=True)


def change(
    board: Board, step: str, swap: str, undo: str = "-m edge_llm.edge_llm_release restore"
) -> bool:
    """Begin a change that stops dead at `step`; whether it got there, rather than to its end.

    `undo` is what Python runs once it was killed.
    """
    listed = ("systemctl", "list-units", "--all", "--no-legend", f"{UNIT}.service")
    until(lambda: not board.run(*listed).strip(), "the end of the change before")
    board.run("rm", "-f", CAME_TO)
    board.run(
        *("systemd-run", "--quiet", "--collect", f"--unit={UNIT}"),
        *(f"--property=WorkingDirectory={FOLDER}/lib", f"--property=ExecStopPost={PYTHON} {undo}"),
        *(PYTHON, "/root/driver.py", step, swap),
    )
    until(lambda: board.run("cat", CAME_TO), "a step")
    came_to = board.run("cat", CAME_TO)
    if came_to == step:
        reached[swap].add(step)
        return True
    told = json.loads(came_to)
    assert told["outcome"] == "committed", told
    assert step not in told["steps"]
    return False


def assert_whole(board: Board) -> None:
    """The board serves a whole release, and nothing is left of what was begun."""
    until(lambda: board.ready()["ready"], "readiness")
    until(
        lambda: board.run("systemctl", "is-active", "edge-llm").strip() == "active", "the restore"
    )
    assert board.asked() == known_answers()["smollm2-135m"]
    release = board.current()
    ready = board.ready()
    slots = release["slots"]
    assert ready["provider"] == release["plan"]["provider"]
    assert ready["engine"] == f"http://engine-{slots['engine']}:8080"
    assert set(board.containers()) == {
        "edge-llm-door",
        f"edge-llm-engine-{slots['engine']}",
        f"edge-llm-api-{slots['api']}",
    }
    assert "change.json" not in board.run("ls", FOLDER)


@pytest.mark.parametrize("swap", ["beside", "one-by-one"])
@pytest.mark.parametrize("step", STEPS)
def test_a_change_that_is_killed_is_undone_or_ended(board: Board, step: str, swap: str) -> None:
    if not change(board, step, swap):
        return
    board.run("systemctl", "kill", "--signal=KILL", UNIT)
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
    subprocess.run([sys.executable, "-m", "sandbox", "power-cut", HOST], check=True, timeout=120)
    assert_whole(board)


@pytest.mark.parametrize("how", ["killed", "power cut"])
@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_a_way_back_that_is_cut_short_is_taken_up_again(board: Board, step: str, how: str) -> None:
    """By the host's start, or by the next run. Just before `check` everything is the new one's."""
    assert change(board, "check", "one-by-one", f"/root/driver.py '{step}' restore")
    board.run("rm", CAME_TO)
    board.run("systemctl", "kill", "--signal=KILL", UNIT)
    until(lambda: board.run("cat", CAME_TO), "a step of the way back")
    assert board.run("cat", CAME_TO) == step
    if how == "killed":
        board.run("systemctl", "kill", "--signal=KILL", UNIT)
        done = play("site.yml", HOST)
        assert done.returncode == 0, done.stdout
    else:
        cut = [sys.executable, "-m", "sandbox", "power-cut", HOST]
        subprocess.run(cut, check=True, timeout=120)
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
