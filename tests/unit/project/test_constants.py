"""Values of edge_host.constants that files in other languages repeat."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llm_provider
from edge_host.constants import (
    API_PORT,
    CONTAINER_UID,
    ENGINE_PORT,
    ENGINE_PORTS,
    NETWORK,
    REGISTRY_PORT,
    ROOT,
    SOCKETS_UNIT,
)

SLOTS = "ab"
PROJECT = Path(__file__).parents[3]
UID = re.compile(r"^__\w+_uid: (.*)$|^USER (.*)$", re.MULTILINE)
WITH_A_UID = [
    path
    for path in [*sorted(PROJECT.glob("roles/*/vars/main.yml")), PROJECT / "src/Dockerfile"]
    if UID.search(path.read_text())
]


def found(path: str, pattern: str) -> list[str]:
    return re.findall(pattern, (PROJECT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", WITH_A_UID, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_containers_user(path: Path) -> None:
    values = {value or user for value, user in UID.findall(path.read_text())}
    assert values <= {str(CONTAINER_UID), f"{CONTAINER_UID}:{CONTAINER_UID}"}


def test_files_with_the_containers_user() -> None:
    """The test above sees the image and the roles that make files for it."""
    assert len(WITH_A_UID) >= 4


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


def test_port_of_the_registry() -> None:
    """The plan names the port that hosts reach; inside its container the registry has the same."""
    folder = "roles/registry/templates"
    for name in ("gives.yml.j2", "takes.yml.j2"):
        assert found(f"{folder}/{name}", r'addr: ":(\d+)"') == [str(REGISTRY_PORT)]
    inside = found(f"{folder}/docker-compose.yml.j2", r'^ *ports: \[".*:(\d+)"\]$')
    assert set(inside) == {str(REGISTRY_PORT)}


def test_the_folder_of_the_deployment() -> None:
    roots = [
        value
        for path in PROJECT.glob("roles/*/defaults/main.yml")
        for value in re.findall(r"^\w+_root: .*?(/[\w/-]+)", path.read_text(), re.MULTILINE)
    ]
    assert ROOT in roots
    assert all(value.startswith(ROOT) for value in roots)
