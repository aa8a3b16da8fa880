"""Changes that stop dead at one of their steps, on a board that then must serve all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from edge_host.confinement import confine_service
from edge_host.constants import ENGINE_PORTS, NETWORK
from edge_host.release.unit import build_recovery_command
from edge_host.unit_files.recovery import SERVICE
from tests.integration.load import FOLDER, Board, known_answers
from tests.playing import play
from tests.waiting import until

UNIT = "edge-llm-change"
REACHED = "/run/edge-llm-test"
PYTHON = "/usr/bin/python3"
RECOVER = build_recovery_command(Path(FOLDER) / "change.json")
"""What the release module has systemd run once a change has ended."""
_DROP_IN = f"/run/systemd/system/{SERVICE}.d"
reached: dict[str, set[str]] = {"beside": set(), "one-by-one": set()}


def two_releases(board: Board, before: str) -> None:
    """Give the board a release before its own, of another provider, and the driver of changes."""
    for given in ({"llm_provider": before}, {}):
        done = play("site.yml", board.name, **given)
        assert done.returncode == 0, done.stdout
    script = Path(__file__).with_name("driver.py")
    # Where a restart leaves it.
    subprocess.run(["docker", "cp", script, f"test-{board.name}:/root/driver.py"], check=True)


def units(board: Board) -> str:
    """What systemd says of the change that the tests have begun; nothing where it has ended."""
    return board.run("systemctl", "list-units", "--all", "--no-legend", f"{UNIT}.service").strip()


def kill(board: Board, unit: str = UNIT) -> None:
    """Kill a process that has stopped dead at a step."""
    board.run("systemctl", "kill", "--signal=KILL", unit)


def reached_step(board: Board) -> str:
    """The step that was reached, or the result of the change; nothing where neither is so yet."""
    return board.run("sh", "-c", f"cat {REACHED} 2>/dev/null || true")


def change(board: Board, step: str, swap: str, undo: str = RECOVER) -> bool:
    """Begin a change that stops dead at `step`; whether it got there, rather than to its end.

    `undo` is what systemd runs once it was killed.
    """
    until(lambda: units(board), "the end of the change before", lambda said: not said)
    board.run("rm", "-f", REACHED)
    # As a change is confined, besides the mark of the test.
    properties = (*confine_service(Path(FOLDER)), "ReadWritePaths=/run", f"ExecStopPost={undo}")
    board.run(
        *("systemd-run", "--quiet", "--collect", f"--unit={UNIT}"),
        *(f"--property={each}" for each in properties),
        *(PYTHON, "/root/driver.py", step, swap),
    )
    said = until(lambda: reached_step(board), f"the step {step}")
    if said == step:
        reached[swap].add(step)
        return True
    result = json.loads(said)
    assert result["outcome"] == "committed", result
    assert step not in result["steps"]
    return False


@contextmanager
def recovery_that_stops_at(board: Board, step: str) -> Iterator[None]:
    """Have a recovery stop dead at `step`, once; one that begins after the block does not."""
    text = f"[Service]\nExecStart=\nExecStart={PYTHON} /root/driver.py '{step}' recover\n"
    text += "ReadWritePaths=/run\n"
    # However long the test takes to get there.
    text += "TimeoutStartSec=infinity\n"
    board.run("mkdir", "-p", _DROP_IN)
    board.run("sh", "-c", f'printf %s "$1" > {_DROP_IN}/test.conf', "sh", text)
    board.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        # It is in memory: a power cut takes it away.
        board.run("rm", "-rf", _DROP_IN)
        board.run("systemctl", "daemon-reload")


_STATE = f"""
systemctl list-units --all --no-legend {UNIT}.service | tr '\\n' ' '; echo
systemctl is-active {SERVICE}
tr '\\n' ' ' < {FOLDER}/change.json; echo
tr '\\n' ' ' < {FOLDER}/engine/engine.env; echo
ls {FOLDER}/engine | grep hold.lock; echo
"""


def state(board: Board) -> dict[str, str]:
    """What is left of a change on the board, and what its recovery does."""
    names = ("change", "recovery", "journal", "engine.env", "lock")
    # One command: tests wait for this while CPUs are busy.
    lines = board.run("sh", "-c", f"exec 2>/dev/null; {_STATE}").splitlines()
    return dict(zip(names, map(str.strip, lines), strict=False))


def recovered(board: Board) -> dict[str, Any]:
    """Wait until nothing is left of a change, and nothing is held."""
    return until(
        lambda: state(board),
        "the end of the recovery",
        lambda seen: (
            (seen["change"], seen["recovery"], seen["journal"], seen["lock"])
            == ("", "active", "", "")
            and "LLM_HOLD" not in seen["engine.env"]
        ),
    )


def served(board: Board) -> dict[str, Any]:
    """Wait until the chat API is ready: what it reports."""
    return until(
        board.ready, "readiness", lambda report: report["ready"], ignored=(httpx.HTTPError,)
    )


def assert_whole(board: Board) -> None:
    """The board serves a whole release, and nothing is left of what was begun."""
    recovered(board)
    ready = served(board)
    assert board.asked() == known_answers()["smollm2-135m"]
    release = board.current()
    slots = release["slots"]
    assert ready["provider"] == release["plan"]["provider"]
    assert ready["engine"] == f"http://127.0.0.1:{ENGINE_PORTS[slots['engine']]}"
    assert set(board.containers()) == {
        NETWORK,
        f"edge-llm-engine-{slots['engine']}",
        f"edge-llm-api-{slots['api']}",
    }


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Have so many processes of this machine compete for its CPUs."""
    words = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(words) for _ in range(processes)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()
