"""What on a host differs from its plan, and from this version of the project."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edge_fleet.plan.weights import prunable
from edge_host.constants import (
    API_PORT,
    DOOR,
    IN_PLACE,
    NETWORK,
    PLAIN_KEYS,
    SOCKETS_UNIT,
)
from edge_host.release_record import is_requested

SERVICES = {"engine": "engine", "api": "chat API", "network": "network namespace"}
"""The services of a release, by the names that messages have for them."""


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


def release_differences(
    state: dict[str, Any], plan: dict[str, Any], api_image: str, files: dict[str, str]
) -> list[str]:
    """What differs from the planned release on a host, a phrase each; empty where nothing does.

    `files` maps the names of a release's files to what they would hold, as rendered.
    """
    deployment = state["deployment"]
    release, containers = deployment["release"], deployment["containers"]
    found = port_differences(state, plan["api"]["listen_address"])
    if deployment["change"] is not None:
        found.append("a change was interrupted")
    if release is None:
        return [*found, "the host has no release"]
    written = {
        name.rpartition("/")[2]: file and file["sha256"]
        for name, file in deployment["files"].items()
    }
    if not is_requested(release, files, plan["model"]["digest"], written):
        found.append("the release is another one, or its files were edited")
    if api_image not in deployment["images"]:
        found.append("the chat API's image is missing")
    images = {"engine": plan["engine"]["image"], "api": api_image}
    return found + container_differences(containers, images)


def port_differences(state: dict[str, Any], address: str) -> list[str]:
    """What differs where systemd is to listen at `address` (empty for all), a phrase each."""
    # Where nobody holds a port, systemd does not, nor does the container of an earlier version.
    found = [f"nobody listens on port {port}" for port, user in state["ports"].items() if not user]
    return found + _listen_difference(state["ports"][str(API_PORT)], address)


def container_differences(
    containers: dict[str, Any], images: dict[str, str], services: Collection[str] = tuple(SERVICES)
) -> list[str]:
    """What differs from containers that run as planned, a phrase each.

    `images` are those that the services are to have, where that is known.
    """
    wrong = {
        service: difference
        for service in services
        if (difference := _container_difference(containers.get(service), images.get(service)))
    }
    found = [f"the container of the {SERVICES[name]} {each}" for name, each in wrong.items()]
    # Releases of earlier versions have no network namespace that all share.
    if (
        not wrong
        and "network" in services
        and len({containers[service]["namespace"] for service in services}) > 1
    ):
        # Docker restarts a container that ended: the others keep its former namespace.
        found.append(
            f"{NETWORK} was restarted alone, so that the containers are in different network"
            " namespaces"
        )
    return found


def _listen_difference(user: dict[str, Any] | None, address: str) -> list[str]:
    """How the address of systemd's socket differs, as after a change that was killed."""
    # The container of an earlier version goes on until the next boot.
    if user is None or user["container"] == DOOR:
        return []
    if user.get("unit") != SOCKETS_UNIT:
        # A chat API goes on with the sockets, but nobody has them for the next one.
        return [f"systemd does not hold port {API_PORT}"]
    listening = set(user["addresses"])
    # Another program may listen beside it.
    if listening & ({address} if address else {"0.0.0.0", "::"}):  # noqa: S104 - compared
        return []
    return [
        f"systemd listens at {', '.join(sorted(listening))}, not at {address or 'all addresses'}"
    ]


def _container_difference(container: dict[str, Any] | None, image: str | None) -> str:
    """How a container differs from one that runs as planned; empty where it does not."""
    if container is None:
        return "is missing"
    if container["status"] != "running":
        return f"does not run: it is {container['status']}"
    if container["health"] not in ("healthy", None):
        return f"is {container['health']}"
    if image not in (None, container["image"]):
        return "has another image"
    return ""


def release_in_place(
    state: dict[str, Any], plan: dict[str, Any], api_image: str, files: dict[str, str]
) -> bool:
    """Whether the host runs the release that is asked, whole and untouched by hand."""
    return not release_differences(state, plan, api_image, files)


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
