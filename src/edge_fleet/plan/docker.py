"""The configuration of a host's Docker engine."""

from __future__ import annotations

from typing import Any

from edge_fleet.text import Problem, join_choices

# Options of /etc/docker/daemon.json that take effect at a reload: no container stops for them.
RELOADABLE = (
    "debug",
    "insecure-registries",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
)


LIVE_RESTORE = "live-restore"
"""With this option, a restart or an upgrade of dockerd leaves containers running. dockerd takes it
at a reload (daemon/reload.go of github.com/moby/moby), and does not start with it in a swarm."""


def daemon_json_wanted(
    current: dict[str, Any] | None,
    options: dict[str, Any],
    runtime: str | None,
    binary: str | None,
    add_live_restore: bool = True,
) -> dict[str, Any]:
    """/etc/docker/daemon.json with the options and the runtime merged into its content.

    `add_live_restore`: whether live-restore is turned on where the file says nothing of it.
    """
    wanted: dict[str, Any] = ({LIVE_RESTORE: True} if add_live_restore else {}) | (current or {})
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
