"""The configuration of a host's Docker engine."""

from __future__ import annotations

from typing import Any

from edge_fleet.text import Problem, join_names

# Options of /etc/docker/daemon.json that a reload takes in: no container stops for them.
RELOADABLE = (
    "debug",
    "insecure-registries",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
)


def daemon_json_wanted(
    current: dict[str, Any] | None, options: dict[str, Any], runtime: str | None, binary: str | None
) -> dict[str, Any]:
    """/etc/docker/daemon.json as it should be: what is there stays, ours is merged in."""
    wanted: dict[str, Any] = dict(current or {})
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


def daemon_option_problems(options: dict[str, Any]) -> list[Problem]:
    return [
        f"board_docker_options has {name}, which Docker takes in by a restart only;"
        f" accepted are: {join_names(list(RELOADABLE))}."
        for name in sorted(options)
        if name not in RELOADABLE
    ]
