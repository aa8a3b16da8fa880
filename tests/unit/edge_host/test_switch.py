"""A change from step to step, without Docker; tests/integration/rollback has real containers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import ENGINE_PORTS, NETWORK
from edge_host.host_info.deployment import read_history, read_journal
from edge_host.release import activation, switch
from edge_host.release.chat_api import ChatApi
from edge_host.release.errors import ReleaseError
from edge_host.release.host import Host
from edge_host.release.steps import ActivationStep
from edge_host.release.store import LIVE_ENGINE_FILE, Release, read_variable
from edge_host.release.switch import switch_release
from tests.unit.edge_host.conftest import FakeSockets
from tests.unit.edge_host.test_recovery import Containers, ScriptedCompose

STEPS_BESIDE = ["begin", "create", "load", "prove", "point", "answer"]
STEPS_ONE_BY_ONE = ["begin", "create", "hold", "drain", "stop", "start", "prove", "point", "answer"]
LAST_STEPS = ["check", "commit", "leave", "clean"]


class HealthyContainers(Containers):
    def inspect(self, name: str) -> dict[str, Any] | None:
        found = super().inspect(name)
        if found:
            found["State"]["Health"] = {"Status": "healthy"}
        return found


class FollowingChatApi(ChatApi):
    """Chat APIs that follow the live engine file, as long as their containers run.

    One that shares a network namespace with its engine reaches no other engine, and the others do
    not reach that one.
    """

    def __init__(self, root: Path, containers: Containers) -> None:
        super().__init__(root)
        self._containers = containers
        self.holds: list[str] = []

    def switch_upstream(self, engine_file: str, hold: float = 0) -> None:
        super().switch_upstream(engine_file, hold)
        if hold:
            self.holds.append(read_variable(engine_file, "LLM_BASE_URL"))

    def read_status(self, release: Release) -> dict[str, Any] | None:
        if not self._containers.is_running(release.container("api")):
            return None
        text = self.engine_file.read_text()
        url = read_variable(text, "LLM_BASE_URL")
        ready = release.own_namespace == ("127.0.0.1" in url)
        return {"ready": ready, "engine": url, "in_flight": 0, "holding": "LLM_HOLD" in text}


class FakeHost(Host):
    docker: HealthyContainers
    chat_api: FollowingChatApi

    def __init__(self, root: Path) -> None:
        containers = HealthyContainers()
        self.begun: list[str] = []
        self.retired: list[tuple[str, str]] = []
        super().__init__(str(root), containers, self.begun.append)
        self.chat_api = FollowingChatApi(root, containers)
        self.compose = ScriptedCompose(root, containers)
        containers.signalled = self.retire

    def retire(self, container: str) -> None:
        """End a chat API, as a retiring one without requests does.

        `retired` has each with the engine from which it then gets the last answers.
        """
        socket_file = self.root / "run" / f"{container.removeprefix('edge-llm-')}.sock"
        if not socket_file.exists():  # it has retired
            return
        url = read_variable(self.chat_api.engine_file.read_text(), "LLM_BASE_URL")
        self.retired.append((container, url))
        socket_file.unlink()
        self.docker.up.discard(container)


class Verification:
    """A verification of which the outcome is known; `failures` are the releases that fail."""

    failures: tuple[int, ...] = ()

    def __init__(self, host: Host, release: Release) -> None:
        self._release = release

    def wait(self) -> None:
        if self._release.number in self.failures:
            raise ReleaseError(f"release {self._release.number} does not answer", "its log")

    def close(self) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sockets: FakeSockets) -> FakeHost:
    for name in ("engine", "run", "releases"):
        (tmp_path / name).mkdir()
    for module in (activation, switch):
        monkeypatch.setattr(module, "Verification", Verification)
    monkeypatch.setattr(switch, "free_memory", lambda: None)
    monkeypatch.setattr(Verification, "failures", ())
    return FakeHost(tmp_path)


def add_release(
    host: FakeHost, number: int, swap: str, own_namespace: bool = True, **slots: str
) -> Release:
    record: dict[str, Any] = {
        **{"number": number, "by": "alice@laptop", "swap": swap, "slots": slots},
        **{"start_timeout": 1, "drain_timeout": 1},
        "plan": {"provider": "llamacpp", "model": {"name": "smoke"}, "network": {}},
    }
    folder = host.releases.folder / f"{number:04d}"
    folder.mkdir()
    address = f"127.0.0.1:{ENGINE_PORTS[slots['engine']]}"
    if not own_namespace:
        del record["plan"]["network"]
        address = f"engine-{slots['engine']}:8080"
    (folder / "engine.env").write_text(f"LLM_BASE_URL=http://{address}\n")
    (folder / "release.json").write_text(json.dumps(record))
    (host.root / f"run/api-{slots['api']}.sock").touch()
    return Release(folder, record)


def serving(host: FakeHost) -> Release:
    """A first release, which serves."""
    first = add_release(host, 1, "beside", engine="a", api="a")
    assert switch_release(host, 1, "deploy")["outcome"] == "committed"
    host.begun.clear()
    host.chat_api.holds.clear()
    return first


def containers(slot: str) -> set[str]:
    return {NETWORK, f"edge-llm-engine-{slot}", f"edge-llm-api-{slot}"}


def assert_serves(host: FakeHost, number: int, slot: str) -> None:
    current = host.releases.current()
    assert current is not None
    assert current.number == number
    assert host.docker.up == containers(slot)
    assert (host.root / LIVE_ENGINE_FILE).read_text() == current.engine_file


def test_a_first_change(host: FakeHost) -> None:
    host.docker.up = {"edge-llm-engine-b"}  # of an earlier attempt
    add_release(host, 1, "auto", engine="a", api="a")
    entry = switch_release(host, 1, "deploy")
    assert (entry["outcome"], entry["from"], entry["beside"]) == ("committed", None, True)
    assert list(entry["steps"]) == host.begun == STEPS_BESIDE + LAST_STEPS
    assert_serves(host, 1, "a")
    assert read_journal(host.root) is None


@pytest.mark.parametrize(
    ("swap", "steps"), [("beside", STEPS_BESIDE), ("one-by-one", STEPS_ONE_BY_ONE)]
)
def test_a_change_of_both_parts(host: FakeHost, swap: str, steps: list[str]) -> None:
    first = serving(host)
    add_release(host, 2, swap, engine="b", api="b")
    entry = switch_release(host, 2, "deploy")
    assert entry["outcome"] == "committed"
    assert entry["parts"] == ["engine", "api"]
    assert entry["beside"] == (swap == "beside")
    assert host.begun == [*steps, "hand over", *LAST_STEPS]
    assert_serves(host, 2, "b")
    assert host.releases.previous() == first
    # Requests are held for the old engine while it stops, and for the new one at the handover.
    old, new = ("http://127.0.0.1:11434", "http://127.0.0.1:11435")
    assert host.chat_api.holds == ([new] if swap == "beside" else [old, new])


def test_a_change_of_the_chat_api_alone(host: FakeHost) -> None:
    serving(host)
    add_release(host, 2, "auto", engine="a", api="b")
    entry = switch_release(host, 2, "rollback")
    assert (entry["outcome"], entry["parts"]) == ("committed", ["api"])
    assert host.begun == ["begin", "create", "answer", "hand over", *LAST_STEPS]
    assert host.docker.up == {NETWORK, "edge-llm-engine-a", "edge-llm-api-b"}


@pytest.mark.parametrize("swap", ["beside", "one-by-one"])
def test_a_failed_verification_is_rolled_back(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    serving(host)
    add_release(host, 2, swap, engine="b", api="b")
    monkeypatch.setattr(Verification, "failures", (2,))
    entry = switch_release(host, 2, "deploy")
    assert (entry["outcome"], entry["reason"]) == ("restored", "release 2 does not answer")
    assert entry["log"] == "its log"
    assert host.begun[-3:] == [
        ActivationStep.BEGIN.value,
        ActivationStep.SWITCH_UPSTREAM.value,
        ActivationStep.CLEAN.value,
    ]
    assert_serves(host, 1, "a")
    assert read_journal(host.root) is None
    assert read_history(host.root)[-1]["outcome"] == "restored"


def test_a_first_change_that_fails_leaves_nothing(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_release(host, 1, "auto", engine="a", api="a")
    monkeypatch.setattr(Verification, "failures", (1,))
    assert switch_release(host, 1, "deploy")["outcome"] == "restored"
    assert host.docker.up == set()
    assert host.releases.current() is None


def test_a_rollback_that_fails_ends_the_hold(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving(host)
    add_release(host, 2, "one-by-one", engine="b", api="b")
    monkeypatch.setattr(Verification, "failures", (1, 2))
    entry = switch_release(host, 2, "deploy")
    assert (entry["outcome"], entry["restore_reason"]) == ("failed", "release 1 does not answer")
    assert host.begun.count(ActivationStep.BEGIN.value) == 2
    assert (host.root / LIVE_ENGINE_FILE).read_text() == first.engine_file
    assert not (host.root / "engine/hold.lock").exists()
    # The recovery tries again.
    journal = read_journal(host.root)
    assert journal is not None
    assert (journal["from"], journal["to"], journal["by"]) == (1, 2, "alice@laptop")
    assert journal["step"] == "prove"


def test_the_journal_is_on_the_disk_before_anything_is_touched(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(host)
    add_release(host, 2, "beside", engine="b", api="b")
    flushed: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def create(*_: Any) -> None:
        assert read_journal(host.root) is not None
        assert flushed[-1] == str(host.root)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(host.compose, "run", create)
    assert switch_release(host, 2, "deploy")["outcome"] == "committed"


def test_a_release_that_is_missing(host: FakeHost) -> None:
    with pytest.raises(ReleaseError, match="release 7 is missing on the host"):
        switch_release(host, 7, "deploy")


def test_keys_in_plain_text_stay_as_long_as_the_host_can_go_back(host: FakeHost) -> None:
    keys = host.root / "secrets/api_keys"
    keys.parent.mkdir()
    line = "      CHAT_API_KEYS_FILE: /run/secrets/api_keys"
    (serving(host).folder / "docker-compose.yml").write_text(f"{line}\n")
    keys.write_text("a-key-in-plain-text\n")
    for number in range(2, 7):
        assert keys.exists()
        slot = "ab"[(number + 1) % 2]
        later = add_release(host, number, "beside", engine=slot, api=slot)
        (later.folder / "docker-compose.yml").write_text(f"{line}.jsonl\n")
        assert switch_release(host, number, "deploy")["outcome"] == "committed"
    # The change to release 6 has removed release 1, of an earlier version.
    assert host.releases.list_numbers()[0] > 1
    assert not keys.exists()
