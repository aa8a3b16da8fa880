"""A host of which nothing can be criticised, as host_audit_info describes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROOT = "/opt/edge-llm"
NOW = "2026-11-30T10:00:00Z"


def file(path: str, kind: str = "file", mode: str = "0644", **other: Any) -> dict[str, Any]:
    """A file of the host; its path is below the project's folder."""
    full = f"{ROOT}/{path}".rstrip("/")
    return {"path": full, "kind": kind, "mode": mode, "uid": 0, "gid": 0, "target": None, **other}


def container(service: str, user: int, **other: Any) -> dict[str, Any]:
    """A container of the project that is confined."""
    return {
        "name": f"edge-llm-{service}",
        "id": service * 3,
        "service": service,
        "image": f"docker.io/some/image:1@sha256:{'a' * 64}",
        "running": True,
        "user": f"{user}:{user}",
        "privileged": False,
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": [],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 128,
        "memory": 64 * 1024**2,
        "core_limit": 0,
        "namespaces": [],
        "devices": [],
        "log_driver": "json-file",
        "log_max_size": "10m",
        "healthcheck": True,
        "mounts": [],
        "published": [],
        "network_mode": "container:network" + "network" * 2,
        "networks": [],
        **other,
    }


GOOD: dict[str, Any] = {
    "deployed": True,
    "tls": True,
    "files": [
        file("", "folder", "0755"),
        file("current", "link", "0777", target="releases/0002"),
        file("docker-compose.yml", "link", "0777", target="current/docker-compose.yml"),
        file("lib", "folder", "0755"),
        file("models", "folder", "0755"),
        file("models/.fetch", "folder", "0755"),
        file("models/model.gguf"),
        file("releases", "folder", "0700"),
        file("run", "folder", "0700", uid=10010, gid=10010),
        file("run/door.sock", "socket", "0777", uid=10010, gid=10010),
        file("secrets", "folder", "0711"),
        file("secrets/api_keys.jsonl", mode="0600", uid=10010, gid=10010),
        file("secrets/tls", "link", "0777", target="tls-0123"),
        file("secrets/tls-0123", "folder", "0700", uid=10010, gid=10010),
    ],
    "all_files": True,
    "roots": [ROOT],
    "daemon_json": {
        "icc": False,
        "live-restore": True,
        "log-opts": {"max-size": "10m"},
        "no-new-privileges": True,
        "userland-proxy": False,
    },
    "daemon_json_error": None,
    "daemon_json_file": {**file(""), "path": "/etc/docker/daemon.json"},
    "docker_socket": {**file("", "socket", "0660", gid=998), "path": "/run/docker.sock"},
    "docker_group": [],
    "docker_group_id": 998,
    "docker": {"running": True, "version": "26.1.5", "error": None, "live_restore": True},
    "containers": [
        container("network", 10010, network_mode="none", networks=["none"]),
        container("engine-a", 10011),
        container("api-a", 10010, image="edge-llm/chat-api:0123"),
    ],
    "networks": {"none": {"driver": "null", "internal": False}},
    "units": [{"unit": "edge-llm.service", "exposure": 3.9, "error": None}],
    "listeners": [
        {"port": 8000, "address": "0.0.0.0", "process": "systemd"},
        {"port": 11434, "address": "127.0.0.1", "process": "systemd"},
    ],
    "core_pattern": "core",
    "keys": [
        {"name": "kitchen", "expires": "2027-01-01T00:00:00Z"},
        {"name": "host", "expires": None},
    ],
    "plain_keys": False,
}
Outcome = list[tuple[str, str, str, str]]
Criticised = Callable[[dict[str, Any]], Outcome]

# Advice that many checks give.
NEWEST = "Run site.yml of the newest version."
COMPOSE = f"{NEWEST} Do not edit the compose file on the host."
ENGINE = "edge-llm-engine-a"


def only(outcome: Outcome) -> tuple[str, str, str, str]:
    """The one check that did not pass."""
    (found,) = outcome
    return found
