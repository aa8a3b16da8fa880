"""The Docker engine: its version, configuration, images and this project's containers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..files import read_json
from ..json_data import Facts, objects, parse_json, parse_json_lines, words


def parse_docker_info(text: str, errors: str = "") -> Facts:
    """The engine and its compose plugin from `docker info --format '{{json .}}'`.

    {"running": bool, "version": str or None, "compose": str or None, "runtimes": [str],
    "swarm": whether it is a node of a swarm, "live_restore": whether containers
    outlive it, "error": None or why the engine did not answer}. `errors` is the standard error of
    the command, for an answer without a reason. Client and plugins are described even when the
    engine does not run.
    """
    info = parse_json(text)
    if not isinstance(info, dict):
        info = {}
    version = str(info.get("ServerVersion") or "") or None
    problems = words(info.get("ServerErrors"))
    running = version is not None and not problems
    compose = None
    client = info.get("ClientInfo")
    for plugin in objects(client.get("Plugins") if isinstance(client, dict) else None):
        if plugin.get("Name") == "compose" and not plugin.get("Err"):
            compose = str(plugin.get("Version", "")).lstrip("v") or None
    swarm = info.get("Swarm")
    node = str(swarm.get("LocalNodeState") or "") if isinstance(swarm, dict) else ""
    reason = "; ".join(problems) or errors.strip() or "docker info gave no answer"
    return {
        "running": running,
        "version": version if running else None,
        "compose": compose,
        "runtimes": sorted(words(info.get("Runtimes"))),
        "swarm": node not in ("", "inactive"),
        "live_restore": info.get("LiveRestoreEnabled") is True,
        "error": None if running else reason,
    }


def read_swarm(system: Path) -> bool:
    """Whether the engine was a node of a swarm when it ran last, for one that does not run."""
    return (system / "var/lib/docker/swarm/docker-state.json").exists()


def parse_daemon_json(text: Optional[str]) -> Tuple[Optional[Facts], Optional[str]]:
    """(settings, None), or (None, what the file holds instead of a JSON object)."""
    if text is None:
        return None, None
    try:
        settings = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON: {error}"
    if not isinstance(settings, dict):
        return None, f"it holds a {type(settings).__name__}, not a JSON object"
    return settings, None


def select_options(
    options: Optional[Mapping[str, Any]], names: Sequence[str]
) -> Optional[Dict[str, Any]]:
    """The options of daemon.json with these names; None where there is no such file.

    Others may hold a secret, which the answer of a module would bring into logs and files.
    """
    if options is None:
        return None
    return {name: value for name, value in options.items() if name in names}


def read_own_registries(system: Path) -> Optional[List[str]]:
    """The insecure registries in daemon.json that this project has added, by its own list.

    None where there is no list: the project has added none, or an earlier version has.
    """
    found = read_json(system / "etc/docker/edge-llm.json")
    if found is None:
        return None
    listed = found.get("insecure-registries")
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def parse_published(text: str) -> List[Tuple[str, str, int]]:
    """(container, address, host port) for each TCP port published in `docker ps`'s JSON lines."""
    published = []
    for row in parse_json_lines(text):
        name = _container_name(row)
        for entry in str(row.get("Ports", "")).split(", "):
            match = re.match(r"(.*?):?([0-9]{1,5})(?:-([0-9]{1,5}))?->.*/tcp$", entry)
            if match is None:
                continue
            address, first, last = match.groups()
            for port in range(int(first), int(last or first) + 1):
                published.append((name, address.strip("[]") or "0.0.0.0", port))  # noqa: S104
    return published


def parse_names(text: str) -> Dict[str, str]:
    """A container's id -> its name, in `docker ps --no-trunc`'s JSON lines."""
    return {str(row.get("ID", "")): _container_name(row) for row in parse_json_lines(text)}


def _container_name(row: Facts) -> str:
    """The name of a container in a line of `docker ps`; links have added others."""
    return str(row.get("Names", "")).split(",")[0]


def read_namespace(pid: int, system: Path = Path("/")) -> Optional[str]:
    """The network namespace of a container's first process; None where it does not run."""
    if not pid:
        return None
    try:
        # Path.readlink is of Python 3.9.
        return os.readlink(system / f"proc/{pid}/ns/net")  # noqa: PTH115
    except OSError:
        return None


def parse_images(text: str) -> List[str]:
    """Every `repository:tag` and `repository@digest` in `docker image ls --digests`' lines."""
    names = set()
    for row in parse_json_lines(text):
        repository = row.get("Repository", "<none>")
        if repository == "<none>":
            continue
        if row.get("Tag", "<none>") != "<none>":
            names.add(f"{repository}:{row['Tag']}")
        if row.get("Digest", "<none>") != "<none>":
            names.add(f"{repository}@{row['Digest']}")
    return sorted(names)


def parse_containers(text: str) -> Dict[str, Facts]:
    """The project's containers by name, from `docker inspect`, without those that do not exist.

    {"id", "image" (as configured), "status" (created, running, restarting, exited, ...), "health"
    (starting, healthy, unhealthy, or None without a check), "started_at" (RFC 3339), "pid" (of
    its first process; 0 where it does not run)}
    """
    containers: Dict[str, Facts] = {}
    for item in objects(parse_json(text)):
        try:
            state, config = item["State"], item["Config"]
            health = (state.get("Health") or {}).get("Status")
            containers[item["Name"].lstrip("/")] = {
                "id": item["Id"],
                "image": config["Image"],
                "status": state["Status"],
                "health": None if health == "none" else health,
                "started_at": state["StartedAt"],
                "pid": state.get("Pid", 0),
            }
        except (AttributeError, KeyError, TypeError):  # not the form of docker's output
            continue
    return containers
