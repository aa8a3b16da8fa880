"""What is removed from a host is the project's own; what may be the user's stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_fleet.uninstall import docker_options, oldest_backup, own_holds, own_images

E1, A1 = f"sha256:{'e' * 64}", f"sha256:{'a' * 64}"
CACHE = "192.0.2.9:5000"
MIRROR = {"registry-mirrors": ["https://mirror.example"]}
NVIDIA = {"path": "/usr/bin/nvidia-container-runtime", "runtimeArgs": []}


def release(**daemon_json: Any) -> dict[str, Any]:
    """A release.json, as far as an uninstallation reads it."""
    return {
        "plan": {
            "engine": {"image": f"docker.io/some/llama_cpp:b1-r36@{E1}"},
            "api": {"base_image": f"docker.io/library/python@{A1}"},
            "images": {"cache": ""},
            "gpu": {"runtime": None},
            "docker": {"daemon_json": daemon_json},
        }
    }


def nice(options: dict[str, Any]) -> str:
    return json.dumps(options, indent=4, sort_keys=True) + "\n"


def test_images_of_releases_are_named_by_digest() -> None:
    """Docker does not know the tag of an image that was pulled by digest."""
    installed = [
        "edge-llm/chat-api:1",
        "edge-llm/chat-api:2",
        "nginx:1",
        f"some/llama_cpp@{E1}",
    ]
    assert own_images(installed, [release(), release()]) == [
        "edge-llm/chat-api:1",
        "edge-llm/chat-api:2",
        f"docker.io/library/python@{A1}",
        f"docker.io/some/llama_cpp@{E1}",
    ]
    own = release()
    own["plan"]["engine"]["image"] = "registry:5000/mine:1"
    assert "registry:5000/mine:1" in own_images([], [own])
    own["plan"]["engine"]["image"] = f"registry:5000/mine:2@{E1}"
    assert f"registry:5000/mine@{E1}" in own_images([], [own])
    assert own_images(["nginx:1"], []) == []


@pytest.mark.parametrize("name", ["known_issues", "traps"])
def test_holds_are_those_that_a_plan_has_set(name: str) -> None:
    held = release()
    held["plan"][name] = {"fixes": {"hold": ["docker.io", "containerd"]}}
    assert own_holds([held, release(), held]) == ["containerd", "docker.io"]
    assert own_holds([release()]) == []


def test_the_oldest_backup_is_the_first_by_date() -> None:
    """The number before the date is that of a process."""
    paths = ["/d.json.9.2026-01-02@10:00:00~", "/d.json.1.2026-02-01@09:00:00~", "/d.json.bak"]
    assert oldest_backup(paths) == "/d.json.9.2026-01-02@10:00:00~"
    assert oldest_backup(["/d.json.bak"]) == ""
    assert oldest_backup([]) == ""


@pytest.mark.parametrize(
    ("current", "before", "remaining"),
    [
        # Added by the project.
        ({"debug": False, **MIRROR}, {"debug": False}, {"debug": False}),
        (MIRROR, {}, {}),
        # There before.
        (MIRROR, MIRROR, MIRROR),
        # One more in a list of the user's, and one that the user has added since.
        (
            {"registry-mirrors": ["https://own.example", "https://mirror.example", "https://new"]},
            {"registry-mirrors": ["https://own.example"]},
            {"registry-mirrors": ["https://own.example", "https://new"]},
        ),
        # Not the project's.
        ({"log-driver": "journald", **MIRROR}, {}, {"log-driver": "journald"}),
        ({}, {}, {}),
    ],
)
def test_options_that_a_backup_does_not_have_are_removed(
    current: dict[str, Any], before: dict[str, Any], remaining: dict[str, Any]
) -> None:
    found = docker_options(nice(current), json.dumps(before), MIRROR, [release()])
    assert found == {"remaining": remaining, "unknown": []}


def test_a_value_that_replaced_another_goes_back() -> None:
    options = {"max-concurrent-downloads": 1}
    found = docker_options(nice(options), '{"max-concurrent-downloads": 3}', options, [])
    assert found["remaining"] == {"max-concurrent-downloads": 3}
    changed = docker_options(nice({"max-concurrent-downloads": 5}), nice({}), options, [])
    assert changed["remaining"] == {"max-concurrent-downloads": 5}, "the user has changed it since"


def test_registry_and_runtime_are_those_of_the_releases() -> None:
    written = {"insecure-registries": ["own:5000", CACHE], "runtimes": {"nvidia": NVIDIA}}
    one = release(**written)
    one["plan"] |= {"images": {"cache": "nas"}, "gpu": {"runtime": "nvidia"}}
    one["plan"]["engine"] = {"image": f"{CACHE}/some/llama_cpp@{E1}"}
    before = {"insecure-registries": ["own:5000"]}
    assert docker_options(nice(written), nice(before), {}, [one])["remaining"] == before
    kept = before | {"runtimes": {"nvidia": NVIDIA, "own": {"path": "/own"}}}
    current = written | {"runtimes": kept["runtimes"]}
    assert docker_options(nice(current), nice(kept), {}, [one])["remaining"] == kept


def test_live_restore_is_removed_where_the_project_turned_it_on() -> None:
    current = {"debug": False, "live-restore": True}
    one = release(**{"live-restore": True})
    found = docker_options(nice(current), nice({"debug": False}), {}, [one])
    assert found["remaining"] == {"debug": False}
    found = docker_options(nice(current), nice(current), {}, [one])
    assert found["remaining"] == current, "it was there before"
    found = docker_options(nice({"live-restore": True}), "", {}, [one])
    assert found["remaining"] == {}


def test_without_a_backup_only_a_file_of_the_projects_own_is_emptied() -> None:
    own = docker_options(nice(MIRROR), "", MIRROR, [])
    assert own == {"remaining": {}, "unknown": []}
    compact = docker_options(json.dumps(MIRROR), "", MIRROR, [])
    assert compact == {"remaining": MIRROR, "unknown": ["registry-mirrors"]}
    more = {"debug": True, **MIRROR}
    mixed = docker_options(nice(more), "", MIRROR, [])
    assert mixed == {"remaining": more, "unknown": ["registry-mirrors"]}
    assert docker_options("", "", MIRROR, []) == {"remaining": {}, "unknown": []}


def test_the_oldest_backup_may_be_a_file_of_the_projects_own() -> None:
    """The role created the file, and a later run added to it."""
    options = {"registry-mirrors": ["https://mirror.example", "https://second.example"]}
    found = docker_options(nice(options), nice(MIRROR), options, [])
    assert found == {"remaining": {}, "unknown": []}
