"""The configuration of a host's Docker engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_fleet.text import Problem, join_choices
from edge_host.constants import PLANNED_OPTIONS, RELOADABLE
from edge_host.image_ref import ImageRef

INSECURE_REGISTRIES = "insecure-registries"
LIVE_RESTORE = "live-restore"
"""With this option, a restart or an upgrade of dockerd leaves containers running. dockerd takes it
at a reload (daemon/reload.go of github.com/moby/moby), and does not start with it in a swarm."""


@dataclass(frozen=True)
class Registries:
    """The registries without TLS in a host's daemon.json that are this project's.

    Attributes:
        own: that of llm_images_cache, where nobody else has written it.
        former: that of a host that was llm_images_cache before: they are to go.
    """

    own: tuple[str, ...]
    former: tuple[str, ...]


def plan_registries(
    state: Mapping[str, Any], options: Mapping[str, Any], registry: str | None
) -> Registries:
    """Which registries the host gets from this project, and which of them it has to lose.

    `registry` is that of llm_images_cache, None without one; `options` are board_docker_options.
    What the file had before the project, or the inventory has, is the user's.
    """
    docker = state["docker"]
    written = (docker["daemon_json"] or {}).get(INSECURE_REGISTRIES) or []
    asked = options.get(INSECURE_REGISTRIES) or []
    recorded = docker.get("own_registries")
    before = _registries_of_releases(state) if recorded is None else recorded
    own = [registry] if registry and (registry in before or registry not in written) else []
    former = [each for each in before if each != registry and each not in asked]
    return Registries(tuple(own), tuple(former))


def _registries_of_releases(state: Mapping[str, Any]) -> list[str]:
    """The registries that earlier versions of this project, which kept no record, have added."""
    releases = [state["deployment"].get(name) for name in ("release", "previous")]
    # References through the registry -> those of the images' origins.
    mirrored = [(each["plan"].get("images") or {}).get("outside") for each in releases if each]
    found = [ImageRef.parse(image).registry for images in mirrored for image in images or ()]
    return list(dict.fromkeys(found))


def daemon_json_wanted(
    current: dict[str, Any] | None,
    options: dict[str, Any],
    runtime: str | None,
    binary: str | None,
    add_live_restore: bool = True,
    former: Sequence[str] = (),
) -> dict[str, Any]:
    """The options of /etc/docker/daemon.json that a plan can have, with those that are asked.

    `current`: what the file has of these, None without a file.
    `add_live_restore`: whether live-restore is turned on where the file says nothing of it.
    `former`: registries that are taken out.
    """
    wanted: dict[str, Any] = ({LIVE_RESTORE: True} if add_live_restore else {}) | (current or {})
    if former and INSECURE_REGISTRIES in wanted:
        left = [each for each in wanted[INSECURE_REGISTRIES] if each not in former]
        wanted[INSECURE_REGISTRIES] = left
        if not left:
            del wanted[INSECURE_REGISTRIES]
    for key, value in options.items():
        if isinstance(value, list):
            kept = [each for each in wanted.get(key, []) if each not in value]
            wanted[key] = kept + value
        else:
            wanted[key] = value
    if runtime:
        runtimes = dict(wanted.get("runtimes") or {})
        runtimes.setdefault(runtime, {"path": binary, "runtimeArgs": []})
        wanted["runtimes"] = runtimes
    return wanted


def merge_daemon_json(text: str, planned: Mapping[str, Any]) -> dict[str, Any]:
    """/etc/docker/daemon.json with the planned options in it; others stay as they are.

    `text` is its content, empty where there is no such file. A planned option that `planned` has
    not goes, such as the project's registry.
    """
    current: dict[str, Any] = json.loads(text) if text.strip() else {}
    others = {name: value for name, value in current.items() if name not in PLANNED_OPTIONS}
    return others | dict(planned)


def daemon_option_problems(options: dict[str, Any], swarm: bool = False) -> list[Problem]:
    """Why options cannot be merged into /etc/docker/daemon.json without a restart of Docker, or
    would keep it from starting.
    """
    problems = [
        f"board_docker_options is invalid: {name} takes effect at a restart of Docker only."
        f" Use {join_choices(RELOADABLE)}."
        for name in sorted(options)
        if name not in RELOADABLE
    ]
    if swarm and options.get(LIVE_RESTORE):
        problems.append(
            f"board_docker_options does not fit: {LIVE_RESTORE} is set, and the host is a node of"
            " a swarm, where Docker does not start with it. Remove the option."
        )
    return problems
