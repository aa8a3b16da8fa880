"""Every check of an audit is passed once, and failed once with its message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.audit import audit, audit_problem
from edge_fleet.audit.containers import CHECKS
from edge_fleet.tables import audit_table
from tests.unit.edge_fleet.audit.conftest import GOOD, NOW, Outcome, container, file

Criticised = Callable[[dict[str, Any]], Outcome]
NEWEST = "Run site.yml of the newest version."
COMPOSE = f"{NEWEST} Do not edit the compose file on the host."
ENGINE = "edge-llm-engine-a"


def test_a_host_without_fault(facts: dict[str, Any], criticised: Criticised) -> None:
    assert criticised(facts) == []
    assert len(audit(facts, NOW)) > 45


def only(outcome: Outcome) -> tuple[str, str, str, str]:
    """The one check that did not pass."""
    (found,) = outcome
    return found


FILES = [
    (
        file("lib/x.pyz", uid=10010),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/lib/x.pyz belongs to the user 10010.",
    ),
    (
        file("models/a.gguf", uid=10012),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/models/a.gguf belongs to the user 10012.",
    ),
    (
        file("models/.fetch/bundle", "folder", "0755", uid=10010),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/models/.fetch/bundle belongs to the user 10010.",
    ),
    (
        file("run/x", uid=1000),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/run/x belongs to the user 1000.",
    ),
    (
        file("releases/0001", "folder", "0777"),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/releases/0001 is writable for every user (0777).",
    ),
    (
        file("releases/0001", "folder", "0775", gid=100),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/releases/0001 is writable for the group 100 (0775).",
    ),
    (
        file("models/.fetch/bundle", "link", "0777", target="/etc"),
        "The project's folders have no links but its own",
        "/opt/edge-llm/models/.fetch/bundle is a link to /etc.",
    ),
    (
        file("current", "link", "0777", target="../../tmp/x"),
        "The project's folders have no links but its own",
        "/opt/edge-llm/current is a link to ../../tmp/x.",
    ),
    (
        file("secrets/engine_key", mode="0644"),
        "Secrets are readable for the project's users only",
        "/opt/edge-llm/secrets/engine_key has mode 0644.",
    ),
    (
        file("secrets/engine_key", mode="0640", gid=100),
        "Secrets are readable for the project's users only",
        "/opt/edge-llm/secrets/engine_key has mode 0640.",
    ),
    (
        file("secrets/tls-1", "folder", mode="0755"),
        "Secrets are readable for the project's users only",
        "/opt/edge-llm/secrets/tls-1 has mode 0755.",
    ),
]
ADVICE_OF_FILES = {
    "Only root and the project's users can write to the project's files": (
        "Find out who changed it; then chown and chmod it, or remove it and run site.yml."
    ),
    "The project's folders have no links but its own": "Find out who made it, and remove it.",
    "Secrets are readable for the project's users only": (
        "chmod go-rwx it, and replace the keys in it."
    ),
}


@pytest.mark.parametrize(("wrong", "check", "found"), FILES)
def test_files(
    facts: dict[str, Any], criticised: Criticised, wrong: dict[str, Any], check: str, found: str
) -> None:
    kept = [each for each in facts["files"] if each["path"] != wrong["path"]]
    facts["files"] = [*kept, wrong]
    assert only(criticised(facts)) == ("failed", check, found, ADVICE_OF_FILES[check])


def test_the_files_of_a_registry_are_examined(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    path = "/opt/edge-llm-registry"
    facts["roots"].append(path)
    facts["files"] += [
        {**file("", "folder", "0755"), "path": path},
        {**file("", "folder", "0755", uid=10013, gid=10013), "path": f"{path}/images"},
        {**file("", mode="0666"), "path": f"{path}/gives.yml"},
    ]
    assert only(criticised(facts))[2] == f"{path}/gives.yml is writable for every user (0666)."


def test_many_problems_are_counted(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["files"] += [file(f"models/{number}", mode="0666") for number in range(7)]
    found = only(criticised(facts))[2]
    assert found.endswith("/models/4 is writable for every user (0666); and 2 more.")


def test_a_hostile_host_prints_one_line(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["files"].append(file("run/\x1b[2J\npassed", mode="0666"))
    facts["files"].append(file("run/" + "x" * 3000, mode="0666"))
    found = only(criticised(facts))[2]
    assert found.startswith(
        "/opt/edge-llm/run/\\x1b[2J\\npassed is writable for every user (0666); "
    )
    assert len(found) == 2003 and found.endswith("xxx...")


def test_files_that_were_not_read(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["all_files"] = False
    assert only(criticised(facts)) == (
        "failed",
        "All of the project's files were examined",
        "Reading ended after 14 files.",
        "Remove what is not needed.",
    )


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


DOCKER_SOCKET = {
    "source": "/var/run/docker.sock",
    "target": "/s",
    "writable": True,
    "propagation": "rprivate",
}
CONTAINERS: list[tuple[dict[str, Any], str, str]] = [
    ({"user": ""}, "Containers run as users without privileges", "runs as root"),
    ({"user": "0:10011"}, "Containers run as users without privileges", "runs as root"),
    (
        {"image": "some/image:latest"},
        "Images are named by digest, or built on the host",
        "runs some/image:latest, which has no digest",
    ),
    (
        {"security_opt": ["no-new-privileges", "seccomp=unconfined", "apparmor:unconfined"]},
        "Containers have no unconfined profile",
        "has seccomp=unconfined, apparmor:unconfined",
    ),
    ({"cap_drop": []}, "Containers have no capabilities", "keeps Docker's default capabilities"),
    ({"cap_add": ["SYS_NICE"]}, "Containers have no capabilities", "has SYS_NICE"),
    ({"privileged": True}, "No container is privileged", "is privileged"),
    (
        {"mounts": [{**DOCKER_SOCKET, "source": "/etc/"}, {**DOCKER_SOCKET, "source": "/"}]},
        "No folder of the host's system is mounted",
        "mounts /etc/, /",
    ),
    ({"memory": 0}, "The memory of containers is limited", "has no memory limit"),
    (
        {"read_only": False},
        "Root file systems of containers are read-only",
        "can write to its root file system",
    ),
    (
        {"namespaces": ["pid", "ipc"]},
        "Containers share no other namespace of the host",
        "shares the host's pid, ipc",
    ),
    (
        {"devices": ["/dev/sda"]},
        "No device of the host is passed to a container",
        "has /dev/sda",
    ),
    (
        {"mounts": [{**DOCKER_SOCKET, "source": "/srv", "propagation": "rshared"}]},
        "Mounts are not propagated to the host",
        "mounts /srv",
    ),
    ({"security_opt": []}, "Containers get no new privileges", "can get new privileges"),
    (
        {"healthcheck": False},
        "The health of engine and chat API is checked",
        "has no health check",
    ),
    (
        {"pids_limit": 0},
        "The number of processes in containers is limited",
        "has no limit of processes",
    ),
    (
        {"mounts": [DOCKER_SOCKET]},
        "docker.sock is in no container",
        "mounts /var/run/docker.sock",
    ),
    (
        {"log_max_size": None},
        "Logs of the project's containers are bounded",
        "writes a log without a limit",
    ),
    (
        {"core_limit": None},
        "A crash of a container leaves no core dump",
        "may leave a core dump, with prompts and keys",
    ),
]
ADVICE_OF_CONTAINERS = {
    "Images are named by digest, or built on the host": (
        "Set llm_image to an image with a digest, or run `make lock IMAGES=all`; then site.yml."
    ),
    "A crash of a container leaves no core dump": (
        f"{NEWEST} Until then, set `kernel.core_pattern=|/bin/false` by sysctl."
    ),
}


@pytest.mark.parametrize(("change", "check", "found"), CONTAINERS)
def test_containers(
    facts: dict[str, Any], criticised: Criticised, change: dict[str, Any], check: str, found: str
) -> None:
    facts["containers"][1] |= change
    advice = ADVICE_OF_CONTAINERS.get(check, COMPOSE)
    assert only(criticised(facts)) == ("failed", check, f"{ENGINE} {found}.", advice)


def test_a_kernel_that_keeps_no_core_dump(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1]["core_limit"] = None
    facts["core_pattern"] = "|/bin/false"
    assert criticised(facts) == []


def test_a_tmpfs_has_no_folder_of_the_host(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1]["mounts"] = [{**DOCKER_SOCKET, "source": "", "target": "/tmp"}]
    assert criticised(facts) == []


def test_a_container_that_is_stopped_is_not_judged(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    facts["containers"].append(container("door", 0, running=False, privileged=True))
    assert criticised(facts) == []


def test_the_network_of_the_host(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1] |= {"network_mode": "host", "networks": ["host"]}
    first, second = criticised(facts)
    assert only([first]) == (
        "failed",
        "Containers do not share the host's network",
        f"{ENGINE} shares the host's network.",
        COMPOSE,
    )
    assert only([second])[1] == "The engine reaches no other machine"


def test_jobs_that_share_a_user(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1]["user"] = "10010:10010"
    assert only(criticised(facts)) == (
        "failed",
        "Each job has a user of its own",
        "the user 10010 is that of the chat API and the engine. Each of these can read the other's"
        " files and keys.",
        f"{NEWEST} Until then, use keys that are for this host alone.",
    )


DOOR = container(
    "door",
    10010,
    published=[{"address": "0.0.0.0", "port": 8000}, {"address": "127.0.0.1", "port": 11434}],
)
FIREWALL = (
    f"{NEWEST} Until then, restrict who reaches the ports by rules in the chain DOCKER-USER:"
    " Docker bypasses ufw and firewalld."
)
SHOWN = "edge-llm-door publishes 0.0.0.0:8000; edge-llm-door publishes 127.0.0.1:11434."


@pytest.mark.parametrize(
    ("version", "status", "more"),
    [
        (
            "26.1.5",
            "failed",
            " With Docker 26.1.5, a neighbour that adds a route to the containers' network reaches"
            " 127.0.0.1:11434, too.",
        ),
        (
            None,
            "failed",
            " With Docker before 28, a neighbour that adds a route to the containers' network"
            " reaches 127.0.0.1:11434, too.",
        ),
        ("28.5.2", "note", ""),
    ],
)
def test_published_ports(
    facts: dict[str, Any], criticised: Criticised, version: str | None, status: str, more: str
) -> None:
    facts["containers"].append(DOOR)
    facts["docker"]["version"] = version
    expected = (status, "Docker publishes no port of the project", SHOWN + more, FIREWALL)
    assert only(criticised(facts)) == expected


def test_published_ports_of_clients_alone(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"].append({**DOOR, "published": [{"address": "::", "port": 8000}]})
    status, _, found, _ = only(criticised(facts))
    assert (status, found) == ("note", "edge-llm-door publishes [::]:8000.")


@pytest.mark.parametrize(
    ("engine", "networks", "shown"),
    [
        (
            {"network_mode": "edge-llm_default", "networks": ["edge-llm_default"]},
            {"edge-llm_default": {"driver": "bridge", "internal": False}},
            "edge-llm_default",
        ),
        ({"network_mode": "unknown", "networks": ["unknown"]}, {}, "unknown"),
        ({"network_mode": "container:of-others", "networks": []}, {}, "host"),
    ],
)
def test_the_network_of_an_engine(
    facts: dict[str, Any],
    criticised: Criticised,
    engine: dict[str, Any],
    networks: dict[str, Any],
    shown: str,
) -> None:
    facts["containers"][1] |= engine
    facts["networks"] = networks
    assert only(criticised(facts)) == (
        "failed",
        "The engine reaches no other machine",
        f"{ENGINE} is on the network {shown}, which leads to others. An engine that was taken over"
        " reaches the LAN and the internet.",
        f"{NEWEST} Until then, drop new connections from that network in DOCKER-USER.",
    )


def test_an_internal_network_leads_nowhere(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1] |= {"network_mode": "inner", "networks": ["inner"]}
    facts["networks"] = {"inner": {"driver": "bridge", "internal": True}}
    assert criticised(facts) == []


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0", "every network of the host"),
        ("::", "every network of the host"),
        ("192.0.2.11", "the network of 192.0.2.11"),
    ],
)
def test_who_reaches_a_port(
    facts: dict[str, Any], criticised: Criticised, address: str, reached: str
) -> None:
    facts["listeners"].append({"port": 11434, "address": address, "process": None})
    assert only(criticised(facts)) == (
        "failed",
        "The engine's port is open to the host itself only",
        f"{address}:11434 (unknown) is open to {reached}.",
        "Stop the program (ss -ltnp names it), and run site.yml.",
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_port_of_the_host_itself(
    facts: dict[str, Any], criticised: Criticised, address: str
) -> None:
    facts["listeners"].append({"port": 11434, "address": address, "process": None})
    assert criticised(facts) == []


def test_a_chat_api_without_tls(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["tls"] = False
    assert only(criticised(facts)) == (
        "note",
        "The chat API is encrypted beyond the host",
        "Port 8000 is open to every network of the host, without TLS: who is on the way reads keys"
        " and chats.",
        "Set llm_tls: true (docs/operating.md), or use a network that you trust.",
    )
    facts["listeners"][0]["address"] = "127.0.0.1"
    assert criticised(facts) == []


def test_ports_that_docker_publishes_without_a_listener(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    """As with "userland-proxy": false."""
    facts["tls"], facts["listeners"] = False, []
    ports = [{"address": "0.0.0.0", "port": port} for port in (8000, 11434)]
    facts["containers"].append({**DOOR, "published": ports})
    found = {check: text for _, check, text, _ in criticised(facts)}
    assert found["The engine's port is open to the host itself only"] == (
        "0.0.0.0:11434 (edge-llm-door) is open to every network of the host."
    )
    assert found["The chat API is encrypted beyond the host"].startswith("Port 8000 is open to")


def test_other_programs(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["listeners"] += [
        {"port": 22, "address": "0.0.0.0", "process": "sshd"},
        {"port": 22, "address": "::", "process": "sshd"},
        {"port": 631, "address": "::", "process": None},
    ]
    assert only(criticised(facts)) == (
        "note",
        "Other programs are open to the host itself only",
        "Open to other machines: an unknown program on port 631; sshd on port 22.",
        "Stop what is not needed; restrict the rest by a firewall.",
    )


UNITS = "The project's units of systemd are sandboxed"


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (
            [{"unit": "edge-llm.service", "exposure": 9.6, "error": None}],
            (
                "failed",
                UNITS,
                "edge-llm.service has the exposure 9.6. At most 4.0 is asked for.",
                f"{NEWEST} `systemd-analyze security UNIT` lists the reasons.",
            ),
        ),
        (
            [{"unit": "edge-llm.service", "exposure": None, "error": "no output"}],
            (
                "note",
                UNITS,
                "The exposure is unknown: edge-llm.service: no output.",
                "It takes systemd 240 or newer: run `systemd-analyze security` on the host.",
            ),
        ),
        (
            [],
            (
                "note",
                UNITS,
                "systemd knows no unit of the project.",
                "Run site.yml: without edge-llm.service, an interrupted change is not recovered.",
            ),
        ),
    ],
)
def test_units(
    facts: dict[str, Any], criticised: Criticised, units: Any, expected: tuple[str, ...]
) -> None:
    facts["units"] = units
    assert only(criticised(facts)) == expected


KEYS: list[tuple[dict[str, Any], tuple[str, str, str, str]]] = [
    (
        {"keys": [{"name": "host", "expires": None}]},
        (
            "failed",
            "The chat API has keys of clients",
            "The file of keys is missing or empty.",
            "Run site.yml.",
        ),
    ),
    (
        {"plain_keys": True},
        (
            "failed",
            "No key of a client is on the host in plain text",
            "secrets/api_keys has the keys: a release of version 0.1 needs them.",
            "Run site.yml until no such release is kept, and replace the keys.",
        ),
    ),
    (
        {
            "keys": [
                {"name": "old", "expires": NOW},
                {"name": "odd", "expires": "never"},
                {"name": "zoneless", "expires": "2027-01-01T00:00:00"},
            ]
        },
        (
            "note",
            "No key of a client has expired",
            "odd, old, zoneless: refused, but still listed.",
            "Remove the names from llm_api_keys, or give them a later `expires`.",
        ),
    ),
    (
        {"keys": [{"name": "default", "expires": None}, {"name": "kitchen", "expires": None}]},
        (
            "note",
            "Keys of clients expire",
            "default, kitchen: valid until somebody removes them (default is llm_api_key, which has"
            " no expiry).",
            "Give each client a key of its own in llm_api_keys, with `expires`.",
        ),
    ),
]


@pytest.mark.parametrize(("change", "expected"), KEYS)
def test_keys(
    facts: dict[str, Any],
    criticised: Criticised,
    change: dict[str, Any],
    expected: tuple[str, str, str, str],
) -> None:
    assert only(criticised(facts | change)) == expected


def test_a_host_without_a_release_passes_no_check_of_it(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    facts["deployed"] = False
    assert only(criticised(facts)) == (
        "failed",
        "A release of edge-llm serves on the host",
        "The host has no release.",
        "Run site.yml, and audit the host then.",
    )
    assert {each["check"] for each in audit(facts, NOW)}.isdisjoint(
        each.check.title for each in CHECKS
    )


def test_every_check_is_in_a_test_above(facts: dict[str, Any]) -> None:
    """Titles of checks are in this file only where a check fails."""
    text = Path(__file__).read_text()
    assert [each["check"] for each in audit(facts, NOW) if f'"{each["check"]}' not in text] == []


def test_the_problem_of_a_host(facts: dict[str, Any]) -> None:
    assert audit_problem("kitchen", audit(facts, NOW)) == ""
    facts["plain_keys"], facts["tls"] = True, False
    assert audit_problem("kitchen", audit(facts, NOW)) == (
        "kitchen: the host does not fit: 1 check of the audit failed (No key of a client is on the"
        " host in plain text). Do what the table above says, and audit the host again."
    )
    facts["all_files"] = False
    assert "2 checks of the audit failed (All of" in audit_problem("k", audit(facts, NOW))


def test_the_table_has_problems_first_and_joins_hosts() -> None:
    bad = {"check": "No x", "cis": "5.1", "status": "failed", "found": "an x.", "advice": "Go."}
    good = {"check": "A y", "cis": "", "status": "passed", "found": "", "advice": ""}
    hint = {"check": "A z", "cis": "2.2", "status": "note", "found": "no z.", "advice": "Decide."}
    hosts: list[Mapping[str, Any]] = [
        {"inventory_hostname": "a", "audit_findings": [good, hint, bad]},
        {"inventory_hostname": "b", "audit_findings": [good, bad]},
        {"inventory_hostname": "c"},
    ]
    assert audit_table(hosts) == (
        "result  CIS  check\n"
        "failed  -    The host can be read\n"
        "        c: not reached or not read: see the message above\n"
        "failed  5.1  No x\n"
        "        a, b: an x.\n"
        "        Go.\n"
        "note    2.2  A z\n"
        "        a: no z.\n"
        "        Decide.\n"
        "passed  -    A y\n"
        "        a, b"
    )
