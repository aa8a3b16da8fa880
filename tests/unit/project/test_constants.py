"""Values of edge_host.constants that files in other languages repeat."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import llm_provider
from edge_host.constants import API_PORT, CONTAINER_UID, ENGINE_PORT, REGISTRY_UID, ROOT

PROJECT = Path(__file__).parents[3]
UID = re.compile(r"^__(?!registry)\w+_uid: (.*)$|^USER (.*)$", re.MULTILINE)
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
    assert len(WITH_A_UID) >= 3


def test_ports_of_the_chat_api_and_the_engine() -> None:
    assert (llm_provider.API_PORT, llm_provider.ENGINE_PORT) == (API_PORT, ENGINE_PORT)
    assert found("src/Dockerfile", r"^EXPOSE (.*)$") == [str(API_PORT)]
    assert found("roles/preflight/defaults/main.yml", r"':(\d+)'") == [str(API_PORT)]
    compose = "templates/docker-compose.yml.j2"
    published = {
        port for line in found(compose, r"^ *ports: (\[.*\])$") for port in yaml.safe_load(line)
    }
    assert published == {
        f"{API_PORT}:{API_PORT}",
        f"127.0.0.1:{ENGINE_PORT}:{ENGINE_PORT}",
    }
    (command,) = found(compose, r"entrypoint: (\[.*door.*\])$")
    assert yaml.safe_load(command)[-2:] == [str(API_PORT), str(ENGINE_PORT)]


def test_user_of_the_registry() -> None:
    assert found("roles/registry/vars/main.yml", r"^__registry_uid: (\d+)$") == [str(REGISTRY_UID)]
    former = found("roles/registry/vars/main.yml", r"^__registry_former_uid: (\d+)$")
    assert former == [str(CONTAINER_UID)]


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
