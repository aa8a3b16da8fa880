"""What on a host differs from its plan, and from this version of the project."""

from __future__ import annotations

from typing import Any

from edge_fleet.plan.weights import prunable
from edge_host.constants import IN_PLACE, PLAIN_KEYS
from edge_host.release_record import is_requested


def weights_in_place(state: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether the plan's weights are on the host, hashed there, and known to its engine."""
    model, there = plan["model"], state["models"]
    if plan["sources"]["rehash"] or prunable(state, plan):
        return False
    for file in model["files"]:
        found = there.get(file["path"])
        if not found or (found["size"], found["recorded_sha256"]) != (file["size"], file["sha256"]):
            return False
    if plan["provider"] != "ollama":
        return True
    known = state["deployment"]["ollama"].get(model["name"])
    return bool(known == [file["sha256"] for file in model["files"]])


def docker_in_place(state: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether Docker runs on the host as the plan wants it."""
    docker = state["docker"]
    runtime = plan["gpu"]["runtime"]
    return bool(
        docker["running"]
        and docker["compose"]
        and (docker["daemon_json"] or {}) == plan["docker"]["daemon_json"]
        # Without a record, as of an earlier version, the host's releases say which are its own.
        and docker.get("own_registries") in (None, plan["docker"]["registries"]["own"])
        and (runtime is None or runtime in docker["runtimes"])
    )


def release_in_place(
    state: dict[str, Any], plan: dict[str, Any], api_image: str, files: dict[str, str]
) -> bool:
    """Whether the host runs the release that is asked, whole and untouched by hand.

    `files` maps the names of a release's files to what they would hold, as rendered.
    """
    deployment = state["deployment"]
    if not all(state["ports"].values()):
        # Nobody holds a port: systemd does not, nor does the container of an earlier version.
        return False
    release, containers = deployment["release"], deployment["containers"]
    if release is None or deployment["change"] is not None:
        return False
    found = {
        name.rpartition("/")[2]: file and file["sha256"]
        for name, file in deployment["files"].items()
    }
    images = {"engine": plan["engine"]["image"], "api": api_image}
    return (
        is_requested(release, files, plan["model"]["digest"], found)
        and api_image in deployment["images"]
        and all(
            containers.get(service) is not None
            and containers[service]["status"] == "running"
            and containers[service]["health"] in ("healthy", None)
            and containers[service]["image"] == images.get(service, containers[service]["image"])
            for service in ("engine", "api", "network")
        )
        # Docker restarts a container that ended: the others keep its former namespace.
        and len({containers[service]["namespace"] for service in ("engine", "api", "network")}) == 1
    )


def stack_in_place(
    state: dict[str, Any], plan: dict[str, Any], api_image: str, files: dict[str, str]
) -> bool:
    """Whether nothing is left to do: the release, the keys, the program and its units."""
    return (
        keys_in_place(state)
        and release_in_place(state, plan, api_image, files)
        and not installation_drift(state)
    )


def installation_drift(state: dict[str, Any]) -> list[str]:
    """The program and the units on a host that are not as this version of the project has them.

    Each with what was found, such as "edge-llm.service (missing)". Facts that an earlier version
    has gathered do not say.
    """
    found = state["deployment"].get("installed") or {}
    return [f"{name} ({each})" for name, each in found.items() if each != IN_PLACE]


def keys_in_place(state: dict[str, Any]) -> bool:
    """Whether the host has the keys that it is expected to have.

    The file with keys in plain text counts only where a release on the host needs it.
    """
    deployment = state["deployment"]
    not_needed = set() if deployment["plain_keys"] else {PLAIN_KEYS}
    return all(
        is_there for name, is_there in deployment["secrets"].items() if name not in not_needed
    )
