"""The files and the tasks of the registry role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from edge_host.constants import REGISTRY_PROJECT, REGISTRY_UID

ROLE = Path(__file__).parents[3] / "roles/registry"


def render(name: str) -> Any:
    environment = jinja2.Environment(  # noqa: S701 (nothing here is HTML)
        undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(ROLE / "templates")
    )
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    text = environment.get_template(name).render(variables, registry_image="registry@sha256:1")
    return yaml.safe_load(text)


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text())
    return found


def test_the_project_is_the_one_whose_published_ports_are_looked_for() -> None:
    compose = render("docker-compose.yml.j2")
    assert compose["name"] == REGISTRY_PROJECT
    for name, service in compose["services"].items():
        assert service["container_name"] == f"{REGISTRY_PROJECT}-{name}"


@pytest.mark.parametrize("name", ["reads", "writes"])
def test_containers_are_contained(name: str) -> None:
    found = render("docker-compose.yml.j2")["services"][name]
    assert found["user"] == f"{REGISTRY_UID}:{REGISTRY_UID}"
    assert found["network_mode"] == "none"
    assert not {"ports", "networks", "expose"} & set(found)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert (found["mem_limit"], found["pids_limit"], found["ulimits"]) == ("512m", 512, {"core": 0})
    assert found["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    # It does not come up at boot, when nobody distributes images.
    assert found["restart"] == "no"
    writable = {each["source"] for each in found["volumes"] if not each.get("read_only")}
    assert writable == {"reads": {"./reads"}, "writes": {"./private/writes", "./images"}}[name]


def test_one_instance_can_only_be_read() -> None:
    reads, writes = render("reads.yml.j2"), render("writes.yml.j2")
    assert reads["storage"]["maintenance"]["readonly"]["enabled"] is True
    assert "maintenance" not in writes["storage"]
    for config in (reads, writes):
        assert config["http"]["net"] == "unix"


def test_the_port_is_closed_whatever_fails() -> None:
    _, distribution = tasks("distribute")
    close, stop = distribution["always"]
    assert close["registry_port"] == {"state": "closed"}
    assert stop["community.docker.docker_compose_v2"]["state"] == "stopped"
    # By what this run has done: hosts that fail leave the lists that the defaults compute.
    for task in (close, stop):
        assert "registry_files" in task["when"]
        assert "wanted" not in task["when"]


def test_the_socket_for_writes_is_in_a_folder_of_root() -> None:
    (folders,) = [
        task
        for task in tasks("mirror")
        if task["name"] == "Create the folders of the registry's sockets"
    ]
    modes = {each["path"]: (each["owner"], each["mode"]) for each in folders["loop"]}
    assert modes["private"] == ("root", "0700")
    assert modes["staging"] == ("root", "0711")
