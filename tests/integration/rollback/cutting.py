"""Changes that stop dead at one of their steps, on a board that then must serve all the same."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import httpx

from tests.integration.load import FOLDER, Board, known_answers
from tests.playing import play

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


def two_releases(board: Board, before: str) -> None:
    """Give the board a release before its own, of another provider, and the driver of changes."""
    for given in ({"llm_provider": before}, {}):
        done = play("site.yml", board.name, **given)
        assert done.returncode == 0, done.stdout
    script = Path(__file__).with_name("driver.py")
    # Where a restart leaves it.
    subprocess.run(["docker", "cp", script, f"test-{board.name}:/root/driver.py"], check=True)


def kill(board: Board) -> None:
    """Kill the change that has stopped dead; what undoes it begins then."""
    board.run("systemctl", "kill", "--signal=KILL", UNIT)


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
