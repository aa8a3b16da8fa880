"""All hosts are read at once, each with one command where it has the program."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_fleet import fleet_reader
from edge_fleet.fleet_reader import Host, Unreachable, progress_line, read_hosts
from edge_fleet.host_archive import build

from .conftest import JETSON

FACTS = JETSON | {"addresses": []}
PROGRAM = ("edge_host-0.pyz", b"PK the program")
Answer = Callable[[str, bytes], tuple[int, str, str]]


def read(run: Answer, **more: str) -> fleet_reader.Reading:
    host = Host(run=run, root="/opt/edge-llm", secrets={"api_keys": "5e"}, **more)
    return read_hosts({"a": host}, PROGRAM, 4, print)["a"]


def facts(command: str, given: bytes) -> tuple[int, str, str]:
    return 0, json.dumps(FACTS), "a warning"


def fails(error: Exception) -> Answer:
    def run(command: str, given: bytes) -> tuple[int, str, str]:
        raise error

    return run


def test_a_host_with_the_program_costs_one_call() -> None:
    asked: list[tuple[str, bytes]] = []

    def run(command: str, given: bytes) -> tuple[int, str, str]:
        asked.append((command, given))
        return facts(command, given)

    found = read(run)
    assert (found.facts, found.calls, found.problem) == (FACTS, 1, "")
    ((command, given),) = asked
    assert "/opt/edge-llm/lib/edge_host-0.pyz" in command
    # Any user of the host sees a command; the hashes of keys are not in it.
    assert "5e" not in command
    assert json.loads(given) == {
        "root": "/opt/edge-llm",
        "secrets": {"api_keys": "5e"},
        "program": "/opt/edge-llm/lib/edge_host-0.pyz",
    }


def test_a_host_without_the_program_gets_it_on_standard_input() -> None:
    def run(command: str, given: bytes) -> tuple[int, str, str]:
        if given.startswith(PROGRAM[1]):
            assert json.loads(given.removeprefix(PROGRAM[1]))["root"] == "/opt/edge-llm"
            return facts(command, given)
        return 0, "edge-llm: the program is absent\n", ""

    found = read(run)
    assert (found.facts, found.calls) == (FACTS, 2)


@pytest.mark.parametrize(
    ("run", "unreachable", "problem"),
    [
        (fails(Unreachable("timed out")), "timed out", ""),
        (fails(RuntimeError("a \x1b[31mbug")), "", "a \\x1b[31mbug"),
        (
            lambda *_: (2, "", "python3: not found\n"),
            "",
            "the command ended with 2: python3: not found",
        ),
        (lambda *_: (0, "{}", ""), "", "it printed facts of another version"),
    ],
)
def test_a_host_that_cannot_be_read(run: Answer, unreachable: str, problem: str) -> None:
    found = read(run)
    assert (found.facts, found.unreachable, found.problem) == (None, unreachable, problem)


def test_hosts_are_read_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=30)

    def run(command: str, given: bytes) -> tuple[int, str, str]:
        together.wait()
        return facts(command, given)

    hosts = {name: Host(run, "/r", {}) for name in "abc"}
    found = read_hosts(hosts, PROGRAM, 3, print)
    assert [each.facts for each in found.values()] == [FACTS] * 3


def test_a_host_that_takes_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_reader, "LINE_SECONDS", 0.01)
    shown: list[str] = []
    told = threading.Event()

    def run(command: str, given: bytes) -> tuple[int, str, str]:
        assert told.wait(30)
        return facts(command, given)

    def show(line: str) -> None:
        shown.append(line)
        told.set()

    hosts = {"quick": Host(facts, "/r", {}), "slow": Host(run, "/r", {})}
    read_hosts(hosts, PROGRAM, 2, show)
    assert shown[-1].endswith("waiting for slow") or shown[-1].startswith("... 0 of 2")
    names = ["a", "b", "c", "d", "e", "f", "g"]
    line = "... 1 of 8 hosts read, waiting for a, b, c, d, e and 2 more"
    assert progress_line(1, 8, names) == line


def local(command: str, given: bytes) -> tuple[int, str, str]:
    done = subprocess.run(["/bin/sh", "-c", command], input=given, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("installed", [True, False])
def test_the_program_itself_reads_this_machine(tmp_path: Path, installed: bool) -> None:
    root = tmp_path / "a folder"
    name, content = build()
    if installed:
        (root / "lib").mkdir(parents=True)
        (root / "lib" / name).write_bytes(content)
    host = Host(local, str(root), {"api_keys": "5e"})
    found = read_hosts({"a": host}, (name, content), 1, print)["a"]
    assert found.problem == ""
    assert found.facts is not None
    assert found.facts["deployment"]["secrets"] == {"api_keys": False}
    assert found.calls == (1 if installed else 2)
    # Whether the program of this version is on the host, not the one that was sent.
    assert (found.facts["deployment"]["installed"][name] == "missing") is not installed


@pytest.mark.parametrize(("system", "chosen"), [("3.6", "python3.8"), ("3.10", "python3")])
def test_the_python_that_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, chosen: str
) -> None:
    for name in (f"python{system}", "python3.8"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3").symlink_to(f"python{system}")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    root = tmp_path / "root"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / PROGRAM[0]).touch()
    found = read_hosts({"a": Host(local, str(root), {})}, PROGRAM, 1, print)["a"]
    ran = "python3.8" if chosen == "python3.8" else f"python{system}"
    assert found.problem == f"the command ended with 1: {ran}"


def test_the_python_that_the_inventory_names(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(command: str, given: bytes) -> tuple[int, str, str]:
        asked.append(command)
        return facts(command, given)

    assert read(run, python="/opt/my python/bin/python3").problem == ""
    assert asked[0].startswith("p='/opt/my python/bin/python3'; ")
