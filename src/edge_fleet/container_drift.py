"""Which containers of a release have other settings than its Compose file says.

Anybody who may use Docker on a host can change the limits of a container that runs, or run another
one by its name. The container of the network namespace is not compared: it outlives releases, with
the settings of the one that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

PARTS = ("engine", "api")
_COMPOSE = "docker-compose.yml"
_LIMITS = {"memory": "mem_limit", "pids_limit": "pids_limit"}
"""By the names that Compose has for them."""


def altered_settings(state: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of the settings that differ, by part of the release; without those in place.

    state: facts of a host; those that an earlier version has gathered do not say. files: those of
    the release, as rendered.
    """
    found: dict[str, list[str]] = {}
    for part in PARTS:
        container = state["deployment"]["containers"].get(part) or {}
        if live := container.get("settings"):
            # A kernel without a limit drops it: Docker then has none.
            possible = state["docker"].get("limits") or {}
            wanted = _requested(files[_COMPOSE])[part]
            found[part] = [
                name
                for name, value in wanted.items()
                if _comparable(live[name]) != value and possible.get(name, True)
            ]
    return {part: names for part, names in found.items() if names}


def altered_parts(state: Mapping[str, Any], files: Mapping[str, str]) -> list[str]:
    """The parts of a release whose containers are to be replaced, whatever else is in place."""
    return list(altered_settings(state, files))


@lru_cache(maxsize=256)  # Many hosts of a fleet have the same file.
def _requested(compose: str) -> dict[str, dict[str, Any]]:
    """The settings of each part in a Compose file, in the form of `parse_settings` on a host."""
    services = yaml.safe_load(compose)["services"]
    parts = {name.partition("-")[0]: service for name, service in services.items()}
    return {
        part: {
            "user": str(parts[part].get("user", "")),
            "privileged": bool(parts[part].get("privileged", False)),
            "read_only": bool(parts[part].get("read_only", False)),
            "restart": str(parts[part].get("restart", "no")),
            **{name: int(parts[part].get(key, 0)) for name, key in _LIMITS.items()},
            **{
                name: _comparable(parts[part].get(name, []))
                for name in ("cap_drop", "cap_add", "security_opt")
            },
        }
        for part in PARTS
    }


def _comparable(value: Any) -> Any:
    """A list without its order, and with options in one of the forms that Docker takes."""
    if not isinstance(value, list):
        return value
    return sorted(str(each).replace(":", "=").removesuffix("=true") for each in value)
