"""`make status` on boards: of a healthy fleet, and with each problem that an operator can meet."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import FOLDER, Board, board_named
from tests.playing import play, restart

HOST, OTHER = "pi-01", "jetson-01"
SMALL = "/run/edge-llm-small"


@pytest.fixture(scope="module", autouse=True)
def fleet() -> Iterator[None]:
    """The boards are as their inventory says, before the tests and after them."""
    for when in ("before", "after"):
        done = play("site.yml", f"{HOST},{OTHER}")
        assert done.returncode == 0, f"{when}: {done.stdout}"
        if when == "before":
            yield


@pytest.fixture
def board() -> Board:
    return board_named(HOST)


def status(folder: Path, hosts: str, **variables: object) -> tuple[list[dict[str, Any]], str]:
    """The status of boards, as it is written for scripts and as it is shown."""
    file = folder / "status.json"
    done = play("playbooks/status.yml", hosts, status_file=str(file), **variables)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    found: list[dict[str, Any]] = json.loads(file.read_text())["hosts"]
    return found, done.stdout


def problems(folder: Path, **variables: object) -> list[str]:
    """The problems of the board, each of which the table shows."""
    ((found,), shown) = status(folder, HOST, **variables)
    listed: list[str] = found["problems"]
    for each in listed:
        assert f"PROBLEM: {each}" in shown
    return listed


@contextmanager
def damaged(board: Board, cause: str, remedy: str) -> Iterator[None]:
    """A board on which a command has done something, which another one undoes."""
    try:
        board.run("sh", "-ec", cause)
        yield
    finally:
        board.run("sh", "-ec", remedy)


def test_a_healthy_fleet(tmp_path: Path) -> None:
    found, shown = status(tmp_path, f"{HOST},{OTHER}")
    assert "2 hosts, no problems" in shown
    for each in found:
        assert (each["ok"], each["problems"], each["drift"]) == (True, [], [])
        assert (each["engine"], each["chat_api"]) == ("healthy", "healthy")
        assert each["release"] == board_named(each["host"]).current()["number"]
        assert each["memory_total"] > each["memory_used"] > 0


def test_an_engine_that_is_stopped(board: Board, tmp_path: Path) -> None:
    name = f"edge-llm-engine-{board.current()['slots']['engine']}"
    with damaged(board, f"docker stop {name}", f"docker start {name}"):
        wanted = "The container of the engine does not run: it is exited."
        assert any(each.startswith(wanted) for each in problems(tmp_path))


def test_a_file_that_was_edited(board: Board, tmp_path: Path) -> None:
    path, kept = f"$(readlink -f {FOLDER}/.env)", "/run/edge-llm-kept"
    cause = f"cp -p {path} {kept}; echo '# edited' >> {path}"
    with damaged(board, cause, f"cp -p {kept} {path}"):
        assert problems(tmp_path) == [
            ".env is not as it was deployed. Run site.yml, which puts it back."
        ]


def test_a_model_file_that_was_replaced(board: Board, tmp_path: Path) -> None:
    (file,) = board.current()["plan"]["model"]["files"]
    path, kept = f"{FOLDER}/models/{file['path']}", f"{FOLDER}/models/.kept"
    # Another file of the same size, beside the running engine's, which keeps its own.
    cause = f"mv {path} {kept}; truncate -s {file['size']} {path}"
    with damaged(board, cause, f"mv -f {kept} {path}"):
        assert problems(tmp_path) == [
            f"models/{file['path']} is not as it was deployed. Run site.yml, which puts it back."
        ]


def test_a_disk_that_is_full(board: Board, tmp_path: Path) -> None:
    """The deployment is a small file system's, in place of this machine's disk."""
    cause = (
        f"mkdir -p {SMALL}; mount -t tmpfs -o size=10m none {SMALL};"
        f" dd if=/dev/zero of={SMALL}/full bs=1k count=9500 status=none"
    )
    with damaged(board, cause, f"umount {SMALL}; rmdir {SMALL}"):
        assert any(
            each.startswith("The disk is almost full: 1 MiB of 10 MiB are free.")
            for each in problems(tmp_path, board_root=SMALL)
        )


def test_a_board_that_is_off(tmp_path: Path) -> None:
    subprocess.run(["docker", "kill", f"test-{HOST}"], check=True, capture_output=True)
    try:
        (off, other), shown = status(tmp_path, f"{HOST},{OTHER}")
    finally:
        restart("reboot", HOST)
    assert (off["host"], off["ok"], other["host"], other["ok"]) == (HOST, False, OTHER, True)
    assert off["problems"][0].startswith("The host is not reached: ")
    assert f"1 of 2 hosts have problems: {HOST}" in shown
