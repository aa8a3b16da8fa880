"""Values of edge_host.constants that files in other languages repeat."""

from __future__ import annotations

import re
from pathlib import Path

import llm_provider
from edge_host import constants
from edge_host.constants import (
    API_PORT,
    API_UID,
    ENGINE_PORT,
    ENGINE_PORTS,
    NETWORK,
    ROOT,
    SOCKETS_UNIT,
    USER_IDS,
)

SLOTS = "ab"
PROJECT = Path(__file__).parents[3]
UID = re.compile(r"^__[a-z]+_(\w*uid): (.*)$", re.MULTILINE)


def found(path: str, pattern: str) -> list[str]:
    return re.findall(pattern, (PROJECT / path).read_text(), re.MULTILINE)


def test_users_of_the_roles_and_of_the_image() -> None:
    roles = {
        path.parts[-3]: dict(UID.findall(path.read_text()))
        for path in PROJECT.glob("roles/*/vars/main.yml")
    }
    assert {name: uids for name, uids in roles.items() if uids} == {
        "monitoring": {"uid": str(constants.MONITORING_UID), "api_uid": str(API_UID)},
        "registry": {"uid": str(constants.REGISTRY_UID)},
        "stack": {"api_uid": str(API_UID), "engine_uid": str(constants.ENGINE_UID)},
        "weights": {"download_uid": str(constants.DOWNLOAD_UID)},
    }
    assert found("src/Dockerfile", "^USER (.*)$") == [f"{API_UID}:{API_UID}"]


def test_every_job_has_a_user_of_its_own() -> None:
    named = {name: uid for name, uid in vars(constants).items() if name.endswith("_UID")}
    assert sorted(named.values()) == sorted(USER_IDS)
    assert len(set(USER_IDS)) == len(USER_IDS) == 5


def test_ports_of_the_chat_api_and_the_engine() -> None:
    assert (llm_provider.API_PORT, llm_provider.ENGINE_PORT) == (API_PORT, ENGINE_PORT)
    assert found("src/Dockerfile", r"^EXPOSE (.*)$") == [str(API_PORT)]
    assert found("roles/preflight/defaults/main.yml", r"':(\d+)'") == [str(API_PORT)]
    # By this name users read the engine in slot a; the other slot has a port of its own.
    assert ENGINE_PORTS["a"] == ENGINE_PORT
    assert len({*ENGINE_PORTS.values(), API_PORT}) == len(SLOTS) + 1


def test_names_of_containers_and_units() -> None:
    names = found("templates/docker-compose.yml.j2", r"^    container_name: (edge-llm-[\w-]+)$")
    assert names == [NETWORK]
    assert SOCKETS_UNIT in found("roles/stack/vars/main.yml", r"^__stack_units: \[(.*)\]$")[0]


def test_sockets_of_the_registry() -> None:
    """Where the containers make them is where the host's programs look for them."""
    folder = "roles/registry/templates"
    paths = [
        found(f"{folder}/{name}.yml.j2", r"^http: \{net: unix, addr: (\S+)\}$")
        for name in ("reads", "writes")
    ]
    assert paths[0] == paths[1]
    ((inside, name),) = [each[0].rsplit("/", 1) for each in paths[:1]]
    compose = found(f"{folder}/docker-compose.yml.j2", rf"source: \./(\S+), target: {inside},")
    assert compose == ["reads", "private/writes"]
    used = found("roles/registry/tasks/mirror.yml", r'socket: "\{\{ registry_root \}\}/(\S+)"')
    assert used == [f"private/writes/{name}", f"reads/{name}"]


def test_the_folder_of_the_deployment() -> None:
    roots = [
        value
        for path in PROJECT.glob("roles/*/defaults/main.yml")
        for value in re.findall(r"^\w+_root: .*?(/[\w/-]+)", path.read_text(), re.MULTILINE)
    ]
    assert ROOT in roots
    assert all(value.startswith(ROOT) for value in roots)
