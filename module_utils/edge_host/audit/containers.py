"""How the containers of the project are confined, from `docker inspect`."""

from __future__ import annotations

from typing import Any, Dict, List

from ..constants import MONITORING_PROJECT, PROJECT, REGISTRY_PROJECT
from ..json_data import Facts, objects, parse_json, words

_LABEL = "com.docker.compose.project"
PROJECTS = (PROJECT, REGISTRY_PROJECT, MONITORING_PROJECT)
"""Projects of Docker Compose that are this project's."""


def parse_confinement(text: str) -> List[Facts]:
    """The containers of the project in the output of `docker inspect --type container`, by name.

    `library/host_audit_info.py` documents the values.
    """
    found = []
    for item in objects(parse_json(text)):
        config, host = _object(item, "Config"), _object(item, "HostConfig")
        if _object(config, "Labels").get(_LABEL) not in PROJECTS:
            continue
        log = _object(host, "LogConfig")
        core = [each for each in objects(host.get("Ulimits")) if each.get("Name") == "core"]
        found.append(
            {
                "name": str(item.get("Name", "")).lstrip("/"),
                "id": str(item.get("Id", "")),
                "service": str(_object(config, "Labels").get("com.docker.compose.service", "")),
                "image": str(config.get("Image", "")),
                "running": _object(item, "State").get("Running") is True,
                "user": str(config.get("User") or ""),
                "privileged": host.get("Privileged") is True,
                "read_only": host.get("ReadonlyRootfs") is True,
                "cap_drop": words(host.get("CapDrop")),
                "cap_add": words(host.get("CapAdd")),
                "security_opt": words(host.get("SecurityOpt")),
                "pids_limit": _limit(host.get("PidsLimit")),
                "memory": _limit(host.get("Memory")),
                "core_limit": core[0].get("Hard") if core else None,
                "namespaces": _host_namespaces(host),
                "devices": [str(each.get("PathOnHost")) for each in objects(host.get("Devices"))],
                "log_driver": str(log.get("Type") or ""),
                "log_max_size": _object(log, "Config").get("max-size"),
                "healthcheck": bool(_object(config, "Healthcheck").get("Test")),
                "mounts": [_mount(each) for each in objects(item.get("Mounts"))],
                "published": _published(_object(host, "PortBindings")),
                "network_mode": str(host.get("NetworkMode") or ""),
                "networks": words(_object(item, "NetworkSettings").get("Networks")),
            }
        )
    return sorted(found, key=lambda each: str(each["name"]))


def parse_networks(text: str) -> Dict[str, Facts]:
    """{name: {"driver", "internal"}} in the output of `docker network inspect`."""
    return {
        str(each.get("Name", "")): {
            "driver": str(each.get("Driver", "")),
            "internal": each.get("Internal") is True,
        }
        for each in objects(parse_json(text))
    }


def _object(found: Facts, name: str) -> Facts:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _limit(value: Any) -> int:
    """A limit; 0 where there is none (docker has null, 0 or -1 for that)."""
    return value if isinstance(value, int) and value > 0 else 0


def _host_namespaces(host: Facts) -> List[str]:
    """The namespaces that the container shares with the host, besides its network."""
    modes = {"pid": "PidMode", "ipc": "IpcMode", "uts": "UTSMode", "user": "UsernsMode"}
    return [name for name, key in modes.items() if host.get(key) == "host"]


def _mount(found: Facts) -> Facts:
    return {
        "source": str(found.get("Source", "")),
        "target": str(found.get("Destination", "")),
        "writable": found.get("RW") is True,
        "propagation": str(found.get("Propagation") or ""),
    }


def _published(bindings: Facts) -> List[Facts]:
    """The host's addresses and ports that Docker passes to the container."""
    return [
        {
            "address": str(each.get("HostIp") or "0.0.0.0"),  # noqa: S104 - Docker's default
            "port": int(port) if str(port).isdigit() else 0,
        }
        for _, hosts in sorted(bindings.items())
        for each in objects(hosts)
        for port in [each.get("HostPort") or ""]
    ]
