"""The network namespace of engines and chat APIs: changes to it and from it, and its loss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import DEFAULT_NETWORK, DOOR, NETWORK
from edge_host.host_info.deployment import read_journal
from edge_host.release import activation, recovery
from edge_host.release.docker_api import Docker
from edge_host.release.errors import ReleaseError
from edge_host.release.provision import provide_sockets
from edge_host.release.steps import Step
from edge_host.release.store import LIVE_ENGINE_FILE, Release
from edge_host.release.switch import switch_release
from tests.unit.edge_host.conftest import FakeSockets
from tests.unit.edge_host.test_switch import LAST_STEPS, FakeHost, Verification, add_release, host

__all__ = ["host"]

SWAPS = ["beside", "one-by-one"]
STEPS = {
    "beside": ["begin", "create", "load", "prove", "answer", "hand over", *LAST_STEPS],
    "one-by-one": [
        *("begin", "create", "hand over", "stop", "start", "prove", "point", "answer"),
        *LAST_STEPS,
    ],
}
OLD, NEW = "http://engine-a:8080", "http://127.0.0.1:11434"


class Killed(BaseException):
    """The end of a process, which handles nothing."""


def serving(host: FakeHost, sockets: FakeSockets, own_namespace: bool) -> Release:
    """A first release, which serves. Of an earlier version, it has its ports from Docker."""
    first = add_release(host, 1, "beside", own_namespace, engine="a", api="a")
    if not own_namespace:
        sockets.held = False
        host.docker.up.add(DOOR)
    host.releases.commit(first)
    host.chat_api.switch_upstream(first.engine_file)
    if own_namespace:
        host.docker.start(NETWORK)
    for part in ("engine", "api"):
        host.docker.start(first.container(part))
    host.docker.started.clear()
    return first


def parts(slot: str, own_namespace: bool, *others: str) -> set[str]:
    found = {f"edge-llm-engine-{slot}", f"edge-llm-api-{slot}", *others}
    return found | {NETWORK} if own_namespace else found


def assert_serves(host: FakeHost, release: Release) -> None:
    assert host.releases.current() == release
    assert host.docker.up - {DOOR} == parts(release.slots["api"], release.own_namespace)
    assert (host.root / LIVE_ENGINE_FILE).read_text() == release.engine_file
    status = host.chat_api.read_status(release)
    assert status is not None
    assert status["ready"]


@pytest.mark.parametrize("swap", SWAPS)
def test_a_host_of_an_earlier_version_is_changed(
    host: FakeHost, sockets: FakeSockets, swap: str
) -> None:
    """The chat API before gets its last answers from the engine that it reaches."""
    first = serving(host, sockets, own_namespace=False)
    second = add_release(host, 2, swap, engine="b", api="b")
    entry = switch_release(host, 2, "deploy")
    assert (entry["outcome"], entry["beside"]) == ("committed", swap == "beside")
    assert host.begun == list(entry["steps"]) == STEPS[swap]
    assert host.retired == [("edge-llm-api-a", OLD)]
    # Where both load beside each other, the new one takes connections at once.
    assert host.chat_api.holds == ([OLD] if swap == "beside" else [])
    assert_serves(host, second)
    assert host.releases.previous() == first
    # Connections go on through the container that has the ports: its end would cut them off.
    assert DOOR in host.docker.up
    assert not sockets.held
    assert host.docker.networks == set()


@pytest.mark.parametrize("swap", SWAPS)
def test_a_release_of_an_earlier_version_is_gone_back_to(
    host: FakeHost, sockets: FakeSockets, swap: str
) -> None:
    serving(host, sockets, own_namespace=True)
    earlier = add_release(host, 2, swap, own_namespace=False, engine="b", api="b")
    entry = switch_release(host, 2, "rollback")
    assert (entry["outcome"], list(entry["steps"])) == ("committed", STEPS[swap])
    assert host.retired == [("edge-llm-api-a", NEW)]
    assert_serves(host, earlier)
    # systemd has the ports, so that nobody starts the container that published them.
    assert DOOR not in host.docker.up
    assert sockets.held
    assert host.docker.networks == {DEFAULT_NETWORK}


@pytest.mark.parametrize("own_namespace", [False, True], ids=["upgrade", "rollback"])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_change_that_fails_its_verification(
    host: FakeHost,
    sockets: FakeSockets,
    monkeypatch: pytest.MonkeyPatch,
    swap: str,
    own_namespace: bool,
) -> None:
    first = serving(host, sockets, own_namespace)
    add_release(host, 2, swap, not own_namespace, engine="b", api="b")
    monkeypatch.setattr(Verification, "failures", (2,))
    entry = switch_release(host, 2, "deploy")
    assert (entry["outcome"], entry["reason"]) == ("restored", "release 2 does not answer")
    assert_serves(host, first)
    # Nobody has accepted what the new engine would have to answer.
    own = NEW if own_namespace else OLD
    assert host.retired == ([] if swap == "beside" else [("edge-llm-api-a", own)])


def engines(host: FakeHost) -> dict[str, str]:
    """Chat API -> the engine that it reaches."""
    releases = (host.releases.get(number) for number in (1, 2))
    urls = {True: "http://127.0.0.1:", False: "http://engine-"}
    return {each.container("api"): urls[each.own_namespace] for each in releases if each}


def kill_at(host: FakeHost, step: str) -> bool:
    """Change to release 2, and kill the change at a step; whether it got there."""

    def killed(begun: str) -> None:
        if begun == step:
            raise Killed

    host.on_step = killed
    try:
        switch_release(host, 2, "deploy")
    except Killed:
        return True
    finally:
        host.on_step = host.begun.append
        host.chat_api.hold_lock.release()
    return False


def assert_recovered(host: FakeHost) -> None:
    recovery.recover(host)
    current = host.releases.current()
    assert current is not None
    assert_serves(host, current)
    assert read_journal(host.root) is None
    assert not (host.root / "engine/hold.lock").exists()
    for name, url in host.retired:
        assert url.startswith(engines(host)[name])
    assert recovery.recover(host) is None


@pytest.mark.parametrize("own_namespace", [False, True], ids=["upgrade", "rollback"])
@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("step", [step.value for step in Step])
def test_a_change_that_is_killed_is_recovered(
    host: FakeHost, sockets: FakeSockets, step: str, swap: str, own_namespace: bool
) -> None:
    serving(host, sockets, own_namespace)
    add_release(host, 2, swap, not own_namespace, engine="b", api="b")
    assert kill_at(host, step) == (step in STEPS[swap])
    assert_recovered(host)


@pytest.mark.parametrize("own_namespace", [False, True], ids=["upgrade", "rollback"])
@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("ended", [False, True])
def test_a_change_that_is_killed_while_a_chat_api_retires_is_recovered(
    host: FakeHost, sockets: FakeSockets, swap: str, own_namespace: bool, ended: bool
) -> None:
    """The chat API accepts nothing any more, whether it has ended or still answers."""
    serving(host, sockets, own_namespace)
    add_release(host, 2, swap, not own_namespace, engine="b", api="b")
    api = "edge-llm-api-a"

    def killed(name: str) -> None:
        if ended:
            host.retire(name)
            host.docker.up.add(name)
        raise Killed

    host.docker.signalled = killed
    with pytest.raises(Killed):
        switch_release(host, 2, "deploy")
    host.docker.signalled = host.retire
    host.chat_api.hold_lock.release()
    host.docker.started.clear()
    assert_recovered(host)
    assert api in host.docker.started


# What is lost, and what is left.


def test_a_namespace_that_is_gone_is_made_again_before_its_parts(
    host: FakeHost, sockets: FakeSockets
) -> None:
    """Docker starts no container in the namespace of one that is not there."""
    first = serving(host, sockets, own_namespace=True)
    sockets.held = False
    host.docker.up.clear()
    assert recovery.recover(host) is None
    assert host.docker.started == [NETWORK, "edge-llm-engine-a", "edge-llm-api-a"]
    assert sockets.held
    assert_serves(host, first)


def test_parts_of_a_namespace_that_is_gone_are_created_anew(
    host: FakeHost, sockets: FakeSockets
) -> None:
    """They run on, by themselves, and no new part would reach them."""
    first = serving(host, sockets, own_namespace=True)
    host.docker.up.discard(NETWORK)
    host.docker.strangers = {"edge-llm-engine-a", "edge-llm-api-a"}
    recovery.recover(host)
    # The chat API has ended by itself.
    assert host.retired == [("edge-llm-api-a", NEW)]
    assert host.docker.removed[:3] == [*["edge-llm-engine-a"] * 2, "edge-llm-api-a"]
    assert_serves(host, first)


def test_parts_of_a_namespace_that_was_restarted_are_restarted(
    host: FakeHost, sockets: FakeSockets
) -> None:
    first = serving(host, sockets, own_namespace=True)
    host.docker.start(NETWORK)
    host.docker.started.clear()
    recovery.recover(host)
    # What the chat API has accepted is answered, by the engine that it reaches.
    assert host.retired == [("edge-llm-api-a", NEW)]
    assert host.docker.started == ["edge-llm-engine-a", "edge-llm-api-a"]
    assert_serves(host, first)
    assert recovery.recover(host) is None
    assert len(host.docker.started) == 2


def test_connections_wait_until_the_restarted_engine_is_ready(
    host: FakeHost, sockets: FakeSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat API holds requests for a minute, and a model may load for longer."""
    serving(host, sockets, own_namespace=True)
    host.docker.start(NETWORK)
    host.docker.started.clear()
    inspect, asked = host.docker.inspect, [0]

    def loading(name: str) -> dict[str, Any] | None:
        found = inspect(name)
        if name == "edge-llm-engine-a" and name in host.docker.started and found:
            assert "edge-llm-api-a" not in host.docker.up | set(host.docker.started[:-1])
            asked[0] += 1
            found["State"]["Health"]["Status"] = "healthy" if asked[0] > 6 else "starting"
        return found

    monkeypatch.setattr(host.docker, "inspect", loading)
    monkeypatch.setattr(activation, "wait_ready", lambda *_: monkeypatch.undo())
    recovery.recover(host)
    assert asked[0] > 6
    assert host.docker.started == ["edge-llm-engine-a", "edge-llm-api-a"]


def test_an_engine_that_was_restarted_with_its_namespace_is_waited_for_by_nobody(
    host: FakeHost, sockets: FakeSockets
) -> None:
    """The chat API reaches no engine: it could only wait in vain for what it has accepted."""
    first = serving(host, sockets, own_namespace=True)
    host.docker.start(NETWORK)
    host.docker.start("edge-llm-engine-a")
    host.docker.started.clear()
    recovery.recover(host)
    assert host.retired == []
    assert host.docker.started == ["edge-llm-api-a"]
    assert_serves(host, first)


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("engine", ["a", "b"])
def test_the_change_after_a_restarted_namespace(
    host: FakeHost, sockets: FakeSockets, swap: str, engine: str
) -> None:
    """A deployment begins with a recovery, so that the change finds both parts in one namespace."""
    serving(host, sockets, own_namespace=True)
    host.docker.start(NETWORK)
    second = add_release(host, 2, swap, engine=engine, api="b")
    recovery.recover(host)
    assert host.retired == [("edge-llm-api-a", NEW)]
    entry = switch_release(host, 2, "deploy")
    assert entry["outcome"] == "committed"
    assert entry["parts"] == (["engine", "api"] if engine == "b" else ["api"])
    assert host.releases.current() == second
    assert host.docker.up == {NETWORK, f"edge-llm-engine-{engine}", "edge-llm-api-b"}


@pytest.mark.parametrize("own_namespace", [False, True])
def test_a_host_of_an_earlier_version_after_its_next_boot(
    host: FakeHost, sockets: FakeSockets, own_namespace: bool
) -> None:
    """systemd had the ports before Docker could publish them."""
    first = serving(host, sockets, own_namespace)
    sockets.held = True
    host.docker.up.discard(DOOR)
    assert recovery.recover(host) is None
    assert DOOR in host.docker.removed
    assert host.docker.networks == (set() if own_namespace else {DEFAULT_NETWORK})
    assert host.docker.started == []
    assert_serves(host, first)


def test_a_chat_api_gets_the_sockets_that_replace_its_own(
    host: FakeHost, sockets: FakeSockets
) -> None:
    """Somebody has stopped the unit. The chat API answers all that it has accepted first."""
    first = serving(host, sockets, own_namespace=True)
    provide_sockets(host, first)
    assert (host.retired, host.docker.started) == ([], [])
    sockets.held = False
    provide_sockets(host, first)
    assert sockets.held
    assert host.retired == [("edge-llm-api-a", NEW)]
    assert host.docker.started == ["edge-llm-api-a"]
    assert_serves(host, first)


def test_a_stopped_chat_api_stays_so_until_it_is_started(
    host: FakeHost, sockets: FakeSockets
) -> None:
    """The rest of the change starts it, after its engine."""
    first = serving(host, sockets, own_namespace=True)
    host.docker.up.discard("edge-llm-api-a")
    sockets.held = False
    provide_sockets(host, first)
    assert sockets.held
    assert host.docker.started == []


def test_ports_stay_where_they_are(host: FakeHost, sockets: FakeSockets) -> None:
    sockets.held, sockets.problem = False, "systemd cannot listen: port 8000 is in use by nginx"
    host.docker.up = {DOOR}
    provide_sockets(host, None)
    assert host.docker.removed == []
    host.docker.up = set()
    with pytest.raises(
        ReleaseError,
        match="systemd cannot listen: port 8000 is in use by nginx",
    ):
        provide_sockets(host, None)
    sockets.problem = ""
    provide_sockets(host, None)
    assert sockets.held


class Described(Docker):
    """Containers with Docker's descriptions."""

    def __init__(self, **found: dict[str, Any]) -> None:
        self._found = found

    def inspect(self, name: str) -> dict[str, Any] | None:
        return self._found.get(name)


@pytest.mark.parametrize(
    ("mode", "joined"),
    [
        ("container:0123", True),
        ("container:network", True),
        ("container:4567", False),
        ("edge-llm_default", False),
    ],
)
def test_a_container_belongs_to_one_namespace(mode: str, joined: bool) -> None:
    engine = {"HostConfig": {"NetworkMode": mode}}
    assert Described(network={"Id": "0123"}, engine=engine).is_joined("engine", "network") == joined
    assert not Described(engine=engine).is_joined("engine", "network")
    assert not Described(network={"Id": "0123"}).is_joined("engine", "network")


def test_a_namespace_is_that_of_a_process(tmp_path: Path) -> None:
    here, ended = ({"State": {"Pid": pid}} for pid in (os.getpid(), 0))
    assert Described(network=here, engine=here).shares_namespace("engine", "network")
    assert not Described(network=ended, engine=ended).shares_namespace("engine", "network")
    assert not Described(network=here, engine=ended).shares_namespace("engine", "network")
    assert not Described(network=here).shares_namespace("engine", "network")
