"""Checks of containers: users, privileges, limits, mounts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.edge_fleet.audit.hosts import (
    COMPOSE,
    ENGINE,
    NEWEST,
    Criticised,
    container,
    only,
)

REGISTRY = Path(__file__).parents[4] / "roles/registry/templates/docker-compose.yml.j2"
REGISTRY_SERVICES = re.findall(
    r"(?m)^  (\w+):$", REGISTRY.read_text(encoding="utf-8").partition("\nservices:\n")[2]
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


def test_the_monitoring_shares_the_network_of_the_host(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    """A note. A container of another name is no part of it."""
    shared = {"network_mode": "host", "networks": ["host"]}
    facts["containers"].append(
        container("prometheus", 10014, **shared) | {"name": "edge-llm-monitoring-prometheus"}
    )
    status, title, found, _ = only(criticised(facts))
    assert (status, title) == ("note", "The monitoring shares the host's network")
    assert found == (
        "edge-llm-monitoring-prometheus shares the host's network. Docker publishes no port for it."
    )
    facts["containers"][-1]["name"] = "edge-llm-prometheus"
    assert only(criticised(facts))[:2] == (
        "failed",
        "Containers do not share the host's network",
    )


def test_jobs_that_share_a_user(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1]["user"] = "10010:10010"
    assert only(criticised(facts)) == (
        "failed",
        "Each job has a user of its own",
        "the user 10010 is that of the chat API and the engine. Each of these can read the other's"
        " files and keys.",
        f"{NEWEST} Until then, use keys that are for this host alone.",
    )


@pytest.mark.parametrize("service", REGISTRY_SERVICES)
def test_a_registry_that_shares_a_user(
    facts: dict[str, Any], criticised: Criticised, service: str
) -> None:
    facts["containers"].append(container(service, 10011))
    _, check, found, _ = only(criticised(facts))
    assert check == "Each job has a user of its own"
    assert found.startswith("the user 10011 is that of the engine and the registry. ")
