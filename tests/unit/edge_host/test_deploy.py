"""The address of systemd's sockets, before and after a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_host.release import deploy
from edge_host.release.errors import HostLockedError, ReleaseError
from edge_host.release.lock import lock_host
from edge_host.release.store import Release
from edge_host.release.switch import switch_release
from tests.unit.edge_host.conftest import FakeSockets
from tests.unit.edge_host.test_switch import FakeHost, Verification, add_release, host, serving

__all__ = ["host"]

OLD, NEW = "192.0.2.10", "192.0.2.20"


def listening(release: Release, address: str) -> Release:
    """A release that listens at an address."""
    release.record["plan"]["api"] = {"listen_address": address}
    release.record["plan"]["model"]["digest"] = "0" * 64
    (release.folder / "release.json").write_text(json.dumps(release.record))
    return release


class Deployment:
    """A deployment of a release that is staged already.

    `installed` are the addresses with which units were installed, which keep the one they have;
    `addresses` those that systemd was moved to; `unbound` those at which it cannot listen, `moved`
    those for which it made new sockets; `renewed` the releases whose chat APIs were given these.
    """

    def __init__(self, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installed: list[str] = []
        self.addresses: list[str] = []
        self.unbound: set[str] = set()
        self.moved: set[str] = set()
        self.renewed: list[int] = []
        self._root = host.root
        self.staging: ReleaseError | None = None
        self._to = listening(add_release(host, 2, "beside", engine="b", api="b"), NEW)
        (host.root / "secrets").mkdir()
        (host.root / "secrets/engine_key").write_text("key")
        monkeypatch.setattr(deploy, "Host", lambda _: host)
        monkeypatch.setattr(deploy, "install_sockets", self._install)
        monkeypatch.setattr(deploy, "move_sockets", self._move)
        monkeypatch.setattr(
            deploy, "give_new_sockets", lambda _, release: self.renewed.append(release.number)
        )
        for name in (
            *("install_recovery", "remove_other_programs"),
            *("wait_for_recovery", "ensure_folders"),
        ):
            monkeypatch.setattr(deploy, name, lambda *_: None)
        monkeypatch.setattr(deploy, "ensure_engine_key", lambda _: None)
        monkeypatch.setattr(deploy, "diff_files", lambda *_: [])
        monkeypatch.setattr(deploy, "is_in_place", lambda *_: False)
        monkeypatch.setattr(deploy, "stage_release", self._stage)
        monkeypatch.setattr(
            deploy,
            "run_change",
            lambda host, _, number, action, __: switch_release(host, number, action),
        )

    def _install(self, root: Path, program: Path, address: str) -> None:
        self.installed.append(address)

    def _move(self, address: str) -> bool:
        with pytest.raises(HostLockedError), lock_host(self._root, "bob@laptop", timeout=0):
            pytest.fail("the host is not locked while its address changes")
        self.addresses.append(address)
        if address in self.unbound:
            raise ReleaseError("systemd cannot listen")
        return address in self.moved

    def _stage(self, *_: Any) -> Release:
        if self.staging:
            raise self.staging
        return self._to

    def run(self, **options: Any) -> dict[str, Any]:
        given = {
            **{"host": "kitchen", "root": "/opt/edge-llm", "operator": "alice@laptop"},
            **{"action": "deploy", "program": "/opt/edge-llm/lib/p.pyz", "expected_release": None},
            **{"compose": "", "env": "", "engine": "", "metadata": {"plan": self._to.plan}},
        }
        return deploy.deploy({**given, **options}, check_mode=False)


@pytest.fixture
def deployment(host: FakeHost, sockets: FakeSockets, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    listening(serving(host), OLD)
    return Deployment(host, monkeypatch)


def test_a_release_listens_at_its_address(deployment: Deployment) -> None:
    assert deployment.run()["result"]["outcome"] == "committed"
    assert deployment.addresses == [NEW, NEW]
    assert deployment.renewed == []


def test_the_chat_api_that_runs_is_given_new_sockets_before_the_change(
    deployment: Deployment,
) -> None:
    """It would end by itself otherwise, and be taken for one that has failed."""
    deployment.moved = {NEW}
    deployment.run()
    assert deployment.renewed[0] == 1


def test_the_address_is_rolled_back_with_the_release(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Verification, "failures", (2,))
    with pytest.raises(ReleaseError, match="serves again and was verified"):
        deployment.run()
    assert deployment.addresses == [NEW, OLD]


def test_the_address_stays_where_nothing_was_changed(deployment: Deployment) -> None:
    deployment.staging = ReleaseError("the weights are missing")
    with pytest.raises(ReleaseError, match="kitchen: the weights are missing"):
        deployment.run()
    assert deployment.addresses == []


def test_a_run_that_is_refused_moves_no_sockets(deployment: Deployment, host: FakeHost) -> None:
    with lock_host(host.root, "bob@laptop"), pytest.raises(ReleaseError, match="bob@laptop"):
        deployment.run()
    with pytest.raises(ReleaseError, match="the host was changed meanwhile"):
        deployment.run(expected_release=7)
    assert deployment.addresses == []
    assert deployment.installed == [OLD, OLD]


def test_an_address_at_which_nothing_can_listen_is_rolled_back(deployment: Deployment) -> None:
    deployment.unbound = {NEW}
    with pytest.raises(ReleaseError, match="systemd cannot listen"):
        deployment.run()
    assert deployment.addresses == [NEW, OLD]


def test_the_address_is_rolled_back_where_the_change_does_not_start(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ReleaseError("the change could not be started")

    monkeypatch.setattr(deploy, "run_change", refuse)
    with pytest.raises(ReleaseError, match="could not be started"):
        deployment.run()
    assert deployment.addresses == [NEW, OLD]


def test_a_person_rolls_back_to_the_former_address(
    deployment: Deployment, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.run()
    deployment.addresses.clear()
    again = listening(add_release(host, 3, "beside", engine="a", api="a"), OLD)
    monkeypatch.setattr(deploy, "stage_release", lambda *_: again)
    for name in ("docker-compose.yml", ".env"):
        (host.root / "releases/0001" / name).write_text("")
    deployment.run(action="rollback", to=1)
    assert deployment.addresses == [OLD, OLD]
