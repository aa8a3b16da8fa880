"""Checks of Docker: its files, its options, who controls it."""

from __future__ import annotations

from typing import Any

import pytest

from edge_fleet.audit.docker import check_docker
from edge_host.audit.facts import AUDITED_OPTIONS
from tests.unit.edge_fleet.audit.hosts import GOOD, Criticised, only

DAEMON = "/etc/docker/daemon.json"
DOCKER: list[tuple[dict[str, Any], tuple[str, str, str, str]]] = [
    (
        {"daemon_json_error": "it is not JSON: x"},
        (
            "failed",
            "daemon.json belongs to root, and only root can change it",
            f"{DAEMON} is invalid: it is not JSON: x.",
            "Correct the file.",
        ),
    ),
    (
        {"daemon_json_file": {**GOOD["daemon_json_file"], "mode": "0664"}},
        (
            "failed",
            "daemon.json belongs to root, and only root can change it",
            f"{DAEMON} has mode 0664.",
            f"chown root:root {DAEMON} and chmod 0644 it, or stricter.",
        ),
    ),
    (
        {"daemon_json_file": {**GOOD["daemon_json_file"], "uid": 1000}},
        (
            "failed",
            "daemon.json belongs to root, and only root can change it",
            f"{DAEMON} belongs to 1000:0.",
            f"chown root:root {DAEMON} and chmod 0644 it, or stricter.",
        ),
    ),
    (
        {"daemon_json_file": {**GOOD["daemon_json_file"], "kind": "link"}},
        (
            "failed",
            "daemon.json belongs to root, and only root can change it",
            f"{DAEMON} is a link.",
            f"chown root:root {DAEMON} and chmod 0644 it, or stricter.",
        ),
    ),
    (
        {"docker_socket": {**GOOD["docker_socket"], "mode": "0666"}},
        (
            "failed",
            "docker.sock is closed to other users",
            "/run/docker.sock has mode 0666.",
            "Who can write to it is root. Set SocketMode=0660 and SocketGroup=docker.",
        ),
    ),
    (
        {"docker_socket": {**GOOD["docker_socket"], "gid": 100}},
        (
            "failed",
            "docker.sock is closed to other users",
            "/run/docker.sock belongs to 0:100.",
            "Who can write to it is root. Set SocketMode=0660 and SocketGroup=docker.",
        ),
    ),
    (
        {"docker_socket": None},
        (
            "note",
            "docker.sock is closed to other users",
            "There is no /var/run/docker.sock.",
            "Start Docker, if it is used here.",
        ),
    ),
    (
        {"docker_group": ["pi", "anna"]},
        (
            "note",
            "Only trusted users control Docker",
            "The group docker has anna, pi: each can become root.",
            "Remove from it whom you do not trust with that: gpasswd --delete NAME docker.",
        ),
    ),
    (
        {"docker": {**GOOD["docker"], "live_restore": False}},
        (
            "note",
            "Containers outlive a restart of Docker (live restore)",
            "Live restore is off: a restart or an upgrade of Docker interrupts requests.",
            f'Set "live-restore": true in {DAEMON} and reload Docker, unless it is in swarm mode.',
        ),
    ),
]


@pytest.mark.parametrize(("change", "expected"), DOCKER)
def test_docker(
    facts: dict[str, Any],
    criticised: Criticised,
    change: dict[str, Any],
    expected: tuple[str, str, str, str],
) -> None:
    assert only(criticised(facts | change)) == expected


OPTIONS: list[tuple[dict[str, Any], tuple[str, str, str]]] = [
    (
        {"icc": True},
        (
            "Containers on the default bridge do not reach each other",
            f"{DAEMON} does not set icc to false (the project's containers are on no such"
            " network).",
            'For other containers, set "icc": false and restart Docker.',
        ),
    ),
    (
        {"no-new-privileges": False},
        (
            "Containers get no new privileges by default",
            f"{DAEMON} does not set no-new-privileges to true (the project's containers have it).",
            'For other containers, set "no-new-privileges": true and restart Docker.',
        ),
    ),
    (
        {"userland-proxy": None},
        (
            "Docker's userland proxy is disabled",
            f"{DAEMON} does not set userland-proxy to false (without it, programs of the host may"
            " not reach published ports on 127.0.0.1).",
            'For other containers, set "userland-proxy": false and restart Docker.',
        ),
    ),
    (
        {"iptables": False},
        (
            "Docker makes its own rules of iptables",
            f'{DAEMON} has "iptables": false.',
            "Check by your own rules who reaches ports that containers publish.",
        ),
    ),
    (
        {"insecure-registries": ["192.0.2.2:5000"]},
        (
            "Registries are used with TLS",
            "Images of 192.0.2.2:5000 are fetched without TLS.",
            "Images that have a digest cannot be replaced on the way. Use no others of it.",
        ),
    ),
    (
        {"log-opts": {}},
        (
            "Logs of containers are bounded by default",
            f"{DAEMON} has no max-size in log-opts (the project's containers have their own).",
            'For other containers, set "log-opts": {"max-size": "10m"} and restart Docker.',
        ),
    ),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_of_docker(
    facts: dict[str, Any],
    criticised: Criticised,
    options: dict[str, Any],
    expected: tuple[str, str, str],
) -> None:
    facts["daemon_json"] |= options
    assert only(criticised(facts)) == ("note", *expected)


class Options(dict[str, Any]):
    """Docker's options, which note the names that were asked for."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def test_the_options_that_are_judged_are_those_that_a_host_tells(facts: dict[str, Any]) -> None:
    """A host tells no others: they may hold a secret."""
    options = Options({"log-driver": "json-file"})
    listener = {"port": 2375, "address": "0.0.0.0", "process": "dockerd"}
    check_docker(facts | {"daemon_json": options, "listeners": [listener]})
    assert options.asked == set(AUDITED_OPTIONS)


def test_docker_over_tcp(facts: dict[str, Any], criticised: Criticised) -> None:
    # The second is what the first one means besides: another program that is open.
    facts["listeners"].append({"port": 2375, "address": "0.0.0.0", "process": "dockerd"})
    first, second = criticised(facts)
    assert only([first]) == (
        "failed",
        "The Docker daemon is not controlled over TCP without TLS",
        "dockerd listens on TCP port 2375: who reaches it can become root.",
        f"Remove tcp:// from `hosts` in {DAEMON} and from dockerd's arguments, or set tlsverify.",
    )
    assert only([second])[2] == "Open to other machines: dockerd on port 2375."
    facts["daemon_json"]["tlsverify"] = True
    assert criticised(facts) == [second]


def test_docker_that_does_not_answer(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["docker"] |= {"running": False, "version": None, "error": "no answer"}
    facts["containers"] = []
    first, second = criticised(facts)
    assert only([first]) == (
        "failed",
        "Docker answers",
        "no answer.",
        "Start Docker: systemctl start docker.",
    )
    assert only([second]) == (
        "failed",
        "The project's containers run",
        "No container of the project runs.",
        "Look at `docker compose ps --all` in /opt/edge-llm, and run site.yml.",
    )
