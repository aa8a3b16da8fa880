"""The configuration of a host's Docker engine."""

from __future__ import annotations

from typing import Any

from edge_fleet.text import Problem, join_choices

# Options of /etc/docker/daemon.json that take effect at a reload: no container stops for them.
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
    """/etc/docker/daemon.json with the options and the runtime merged into its content."""
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
    """Why options cannot be merged into /etc/docker/daemon.json without a restart of Docker."""
    return [
        f"board_docker_options is invalid: {name} takes effect at a restart of Docker only."
        f" Use {join_choices(RELOADABLE)}."
        for name in sorted(options)
        if name not in RELOADABLE
    ]
