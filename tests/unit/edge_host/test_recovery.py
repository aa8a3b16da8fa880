"""Waits of a change and of a recovery, the lock of a hold, and messages to systemd."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_host.confinement import confine_service
from edge_host.constants import DEFAULT_NETWORK, ENGINE_PORTS, NETWORK
from edge_host.host_info.deployment import read_journal
from edge_host.release import activation, chat_api, compose, docker_api, recovery, services, unit
from edge_host.release.activation import max_activation_seconds
from edge_host.release.chat_api import ChatApi
from edge_host.release.compose import Compose
from edge_host.release.docker_api import Docker
from edge_host.release.errors import ReleaseError
from edge_host.release.hold_lock import HoldLock
from edge_host.release.host import Host
from edge_host.release.lock import lock_host
from edge_host.release.steps import ActivationStep, Step
from edge_host.release.store import Release
from edge_host.sockets import units
from edge_host.unit_files.recovery import LOCK_SECONDS, build_unit
from edge_host.unit_files.sockets import START_SECONDS
from tests.playing import ROOT
from tests.unit.edge_host.conftest import FakeSockets


class Containers(Docker):
    """Containers of a board; `signalled` is called with one that gets a signal.

    `namespace` counts the starts of the container that owns the network namespace, `strangers` were
    created for another such container.
    """

    def __init__(self) -> None:
        self.up: set[str] = set()
        self.namespace = 0
        self.joined: dict[str, int] = {}
        self.strangers: set[str] = set()
        self.networks = {DEFAULT_NETWORK}
        self.started: list[str] = []
        self.removed: list[str] = []
        self.signalled: Callable[[str], None] = lambda _: None

    def inspect(self, name: str) -> dict[str, Any] | None:
        return {"State": {"Running": True, "Restarting": False}} if name in self.up else None

    def list_containers(self) -> dict[str, str]:
        return {name: name.removeprefix("edge-llm-") for name in self.up}

    def is_joined(self, name: str, owner: str) -> bool:
        return name not in self.strangers

    def shares_namespace(self, name: str, owner: str) -> bool:
        return {name, owner} <= self.up and self._namespace_of(name) == self._namespace_of(owner)

    def _namespace_of(self, name: str) -> int:
        return self.namespace if name == NETWORK else self.joined.get(name, self.namespace)

    def start(self, name: str) -> None:
        if name == NETWORK:
            self.namespace += 1
        else:
            self.joined[name] = self.namespace
        self.up.add(name)
        self.started.append(name)

    def stop(self, name: str, seconds: int) -> None:
        self.up.discard(name)

    def send_signal(self, name: str, signal: str) -> None:
        self.signalled(name)

    def remove(self, name: str) -> None:
        self.up.discard(name)
        self.strangers.discard(name)
        self.removed.append(name)

    def remove_network(self, name: str) -> None:
        self.networks.discard(name)

    def read_log(self, name: str, until: str = "") -> str:
        return f"the log of {name}"


class ScriptedChatApi(ChatApi):
    """Chat APIs that answer what `says` has, by service."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.says: dict[str, Any] = {}

    def read_status(self, release: Release) -> dict[str, Any] | None:
        status: dict[str, Any] | None = self.says.get(release.service("api"))
        return status


class ScriptedCompose(Compose):
    """Docker Compose, which starts the container of the namespace and nothing else."""

    def __init__(self, root: Path, containers: Containers) -> None:
        super().__init__(root, containers)
        self._containers = containers

    def run(self, folder: Path, *arguments: str, timeout: float = 0) -> Any:
        if "--detach" in arguments:
            assert arguments == ("up", "--detach", "--no-deps", "network")
            self._containers.start(NETWORK)
        else:
            # What they depend on is not replaced.
            assert arguments[:2] == ("create", "--no-recreate")


class Board(Host):
    docker: Containers
    chat_api: ScriptedChatApi

    def __init__(self, root: Path) -> None:
        containers = Containers()
        super().__init__(str(root), containers)
        self.chat_api = ScriptedChatApi(root)
        self.compose = ScriptedCompose(root, containers)


@pytest.fixture
def host(tmp_path: Path, sockets: FakeSockets) -> Board:
    for name in ("engine", "run", "releases"):
        (tmp_path / name).mkdir()
    return Board(tmp_path)


def made(host: Host, number: int, slot: str) -> Release:
    folder = host.root / f"releases/{number:04d}"
    folder.mkdir()
    (folder / "engine.env").write_text(f"LLM_BASE_URL=http://127.0.0.1:{ENGINE_PORTS[slot]}\n")
    record = {
        "number": number,
        "slots": {"engine": slot, "api": slot},
        "start_timeout": 600,
        "drain_timeout": 120,
        "plan": {"provider": "llamacpp", "model": {"name": "smoke"}, "network": {}},
    }
    (folder / "release.json").write_text(json.dumps(record))
    return Release(folder, record)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that passed: nobody really waits."""
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: passed[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return passed


# Names on disk.


def test_steps_have_the_names_that_hosts_have_in_their_journals_and_histories() -> None:
    assert [step.value for step in Step] == [
        *("begin", "create", "load", "prove", "hold", "drain", "stop", "start", "answer", "point"),
        *("hand over", "check", "commit", "leave", "clean"),
    ]


# Waits end with what is waited for.


@pytest.fixture
def killed_at_commit(host: Board) -> tuple[Release, Release]:
    """A change from the first release to the second was killed before its commit."""
    first, second = made(host, 1, "b"), made(host, 2, "a")
    host.releases.set_link("current", "releases/0001")
    (host.root / "change.json").write_text('{"from": 1, "to": 2}\nbegin\ncommit\n')
    host.docker.up = {NETWORK, "edge-llm-engine-a", "edge-llm-api-a"}
    host.chat_api.says = {"api-a": {"in_flight": 0}, "api-b": {"in_flight": 0, "holding": True}}
    (host.root / "run/api-a.sock").touch()
    return first, second


def test_a_chat_api_that_ended_without_removing_its_socket_is_not_waited_for(
    host: Board, killed_at_commit: Any, clock: list[float]
) -> None:
    host.docker.signalled = host.docker.up.discard
    entry = recovery.recover(host)
    assert entry is not None
    assert entry["outcome"] == "restored"
    assert clock[0] < 1
    assert not (host.root / "run/api-a.sock").exists()
    assert "LLM_HOLD" not in (host.root / "engine/engine.env").read_text()
    assert host.docker.up == {NETWORK, "edge-llm-engine-b", "edge-llm-api-b"}


def test_a_chat_api_that_retires_is_waited_for(
    host: Board, killed_at_commit: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > 3:
            seen.append((host.root / "engine/engine.env").read_text())
            (host.root / "run/api-a.sock").unlink(missing_ok=True)

    monkeypatch.setattr(time, "sleep", sleep)
    assert recovery.recover(host) is not None
    assert 3 < clock[0] < 4
    assert "LLM_HOLD=720\n" in seen[0]


def test_the_old_chat_api_stays_where_the_new_one_has_ended(
    host: Board, killed_at_commit: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would be left to answer; and nothing is held."""
    switch_upstream = host.chat_api.switch_upstream

    def switched(text: str, hold: float = 0) -> None:
        switch_upstream(text, hold)
        if hold and host.chat_api.says["api-b"]["holding"]:
            host.docker.up.discard("edge-llm-api-b")

    host.docker.up.add("edge-llm-engine-b")
    monkeypatch.setattr(host.chat_api, "switch_upstream", switched)
    with pytest.raises(
        ReleaseError, match="the chat API edge-llm-api-b ended before it got the sockets"
    ):
        recovery.recover(host)
    assert "edge-llm-api-a" in host.docker.up
    assert "LLM_HOLD" not in (host.root / "engine/engine.env").read_text()
    assert clock[0] < 1


@pytest.mark.parametrize("ends", [True, False])
def test_a_chat_api_that_ends_is_not_waited_for_to_answer(
    host: Board, clock: list[float], ends: bool
) -> None:
    first = made(host, 1, "a")
    if not ends:
        host.docker.up.add("edge-llm-api-a")
    with pytest.raises(ReleaseError, match="the chat API edge-llm-api-a does not answer"):
        services.wait_ready(host, first)
    assert clock[0] < 1 if ends else clock[0] > 599


def test_a_condition_that_becomes_true_at_the_end_counts(clock: list[float]) -> None:
    looks = iter([False, True, True])
    assert services.wait_until(lambda: next(looks), 10, lambda: False)
    assert not services.wait_until(lambda: False, 10, lambda: False)
    assert clock[0] < 1


def test_a_command_of_compose_that_hangs_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*words: str, timeout: float) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    host = Host(str(tmp_path))
    monkeypatch.setattr(host.docker, "run_command", command)
    with pytest.raises(ReleaseError, match="docker compose create did not end within 300 s"):
        host.compose.run(tmp_path, "create", "engine-a")


# The unit's time limit.


def test_the_limit_of_a_recovery_covers_all_its_waits(
    host: Board,
    killed_at_commit: Any,
    clock: list[float],
    sockets: FakeSockets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worst case: nothing ends before its time, and the recovery succeeds in the end."""
    first, _ = killed_at_commit
    host.chat_api.says["api-b"]["holding"] = False
    host.chat_api.says["api-a"] = None
    # Both chat APIs have to be retired, and none of them answers or ends.
    (host.root / "change.json").write_text('{"from": 1, "to": 2}\nbegin\nhand over\n')
    host.docker.up |= {"edge-llm-api-b"}
    (host.root / "run/api-b.sock").touch()
    answers = host.chat_api.says.pop("api-b")

    def answer(step: str) -> None:
        if step == ActivationStep.SWITCH_UPSTREAM.value:
            host.chat_api.says["api-b"] = answers

    def takes(seconds: float) -> Callable[..., Any]:
        def spend(*_: Any, **__: Any) -> None:
            clock[0] += seconds

        return spend

    def late(*_: Any) -> None:
        clock[0] += first.record["start_timeout"]

    host.on_step = answer
    # The parts serve in a network namespace that is lost, and the engine loads in the new one.
    host.docker.strangers = {"edge-llm-engine-b", "edge-llm-api-b"}
    host.docker.up |= host.docker.strangers
    host.docker.up.discard(NETWORK)
    run = host.compose.run
    monkeypatch.setattr(
        host.compose, "run", lambda *words: (takes(compose.COMPOSE_SECONDS)(), run(*words))
    )
    monkeypatch.setattr(host.docker, "stop", takes(services.STOP_SECONDS))
    start, start_units = host.docker.start, sockets.start

    def stop_and_start(name: str) -> None:
        # Compose starts that one.
        takes(0 if name == NETWORK else docker_api.STOP_BEFORE_START_SECONDS)()
        start(name)

    monkeypatch.setattr(host.docker, "start", stop_and_start)
    sockets.held = False
    monkeypatch.setattr(units, "start", lambda: (takes(START_SECONDS)(), start_units()))
    monkeypatch.setattr(activation, "wait_healthy", late)
    monkeypatch.setattr(activation, "wait_ready", late)
    assert recovery.recover(host) is not None
    limit = max_activation_seconds(first)
    # What is left is for Docker itself, and does not make up for a wait that is not counted.
    waits = limit - 2 * docker_api.DOCKER_SECONDS
    assert waits - 1 <= clock[0] <= waits + 1


def test_systemd_gets_the_time_limit_of_a_recovery_and_its_end(
    host: Board, killed_at_commit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = killed_at_commit
    host.docker.signalled = host.docker.up.discard
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        recovery.recover_under_systemd(host)
        messages = [systemd.recv(100).decode() for _ in range(3)]
    assert messages == [
        f"EXTEND_TIMEOUT_USEC={LOCK_SECONDS * 1e6:.0f}",
        f"EXTEND_TIMEOUT_USEC={max_activation_seconds(first) * 1e6:.0f}",
        "READY=1",
    ]
    assert read_journal(host.root) is None


def test_a_recovery_that_waits_for_a_change_extends_its_time_limit(
    host: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    with ExitStack() as change:
        change.enter_context(lock_host(host.root, "alice@laptop"))

        def extend(seconds: float) -> None:
            limits.append(seconds)
            if len(limits) == 3:
                change.close()

        monkeypatch.setattr(recovery, "extend_time_limit", extend)
        monkeypatch.setattr(recovery, "LOCK_SECONDS", 0.4)
        recovery.recover_under_systemd(host)
    assert limits == [0.4, 0.4, 0.4, max_activation_seconds(None)]


def test_the_unit_is_valid_for_old_systemd_versions(tmp_path: Path) -> None:
    """Before 244 a oneshot service with Restart= is refused; 237 is JetPack 4's.

    Lines that restrict the service are ignored where they are not known.
    """
    text = build_unit(Path("/opt/edge-llm"), "/usr/bin/python3", Path("/opt/edge-llm/lib/p.pyz"))
    assert "Type=notify\n" in text
    assert "Restart=on-abnormal\n" in text
    known = {
        *("Description", "After", "PartOf", "StartLimitIntervalSec", "Type", "RemainAfterExit"),
        *("Environment", "ExecStart", "TimeoutStartSec", "Restart"),
        *("RestartSec", "WantedBy"),
    }
    restricting = {each.partition("=")[0] for each in confine_service(Path("/opt/edge-llm"))}
    assert set(re.findall(r"(?m)^(\w+)=", text)) == known | restricting


def test_a_complete_change_starts_no_recovery(tmp_path: Path) -> None:
    words = unit.build_recovery_command(tmp_path / "change.json")
    calls = tmp_path / "systemctl"
    calls.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    calls.chmod(0o755)
    shell, option, script = words.split(" ", 2)

    def end() -> None:
        subprocess.run(
            [shell, option, script.strip('"')], check=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        )  # fmt: skip

    end()
    assert not (tmp_path / "said").exists()
    (tmp_path / "change.json").touch()
    end()
    assert (tmp_path / "said").read_text() == "--no-block restart edge-llm.service\n"


# The lock of a hold.


def free(path: Path) -> bool:
    """Whether nobody holds the lock, as the chat API looks."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_hold_is_locked_from_before_it_begins_until_after_it_has_ended(
    host: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, live = host.root / "engine/hold.lock", host.root / "engine/engine.env"
    seen: list[bool] = []

    def write(path: Path, text: str, mode: int = 0) -> None:
        seen.append(lock.exists() and not free(lock))
        live.write_text(text)

    monkeypatch.setattr(chat_api, "replace_file", write)
    host.chat_api.switch_upstream("A=1\n", 5)
    host.chat_api.switch_upstream("A=2\n", 5)
    assert live.read_text() == "A=2\nLLM_HOLD=5\n"
    assert lock.stat().st_mode & 0o777 == 0o640
    host.chat_api.switch_upstream("A=3\n")
    assert seen == [True, True, True]
    assert not lock.exists()
    host.chat_api.switch_upstream("A=4\n")


_HOLDER = """
import pathlib, subprocess, sys, time
sys.path.insert(0, {root!r} + "/module_utils")
from edge_host.release.hold_lock import HoldLock
folder = pathlib.Path({folder!r})
HoldLock(folder / "engine.env", folder).acquire()
subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds, and has a child of its own."""
    words = [sys.executable, "-c", _HOLDER.format(root=str(ROOT), folder=str(tmp_path))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_hold_ends_with_its_process_whatever_its_children_do(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    lock = tmp_path / "hold.lock"
    assert not free(lock)
    # What recovers takes its place while the other is still there, or after it.
    mine = HoldLock(tmp_path / "engine.env", tmp_path)
    mine.acquire()
    mine.acquire()
    assert not free(lock)
    mine.release()
    assert free(lock)
    mine.acquire()
    mine.remove()
    assert not lock.exists()
    holder.kill()
    holder.wait()


def test_a_hold_lock_ends_with_a_process_that_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    lock = tmp_path / "hold.lock"
    assert not free(lock)
    holder.kill()
    holder.wait()
    end = time.monotonic() + 5
    while not free(lock):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lock.exists()


def test_a_recovery_takes_over_the_hold_of_the_change_that_was_killed(
    host: Board, killed_at_commit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = host.root / "engine/hold.lock"
    held: list[bool] = []
    monkeypatch.setattr(
        recovery, "activate_or_end_hold", lambda *_: held.append(lock.exists() and not free(lock))
    )
    recovery.recover(host)
    assert held == [True]
    # Where it ends without having ended the hold, that does not count any more.
    assert free(lock)
