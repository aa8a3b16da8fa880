"""The status of each host as plain data: what the table shows, and what scripts read as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from edge_fleet.status.problems import certificate_end, notes_of, problems_of
from edge_fleet.tables import gpu_layers
from edge_fleet.text import printable

EMPTY: dict[str, Any] = dict.fromkeys(
    (
        *("board", "provider", "model", "model_files", "release", "released_at", "image"),
        *("engine", "chat_api"),
        *("gpu_layers", "memory_used", "memory_total", "temperature", "throttling", "power_mode"),
        *("watts", "watts_of", "disk_free", "disk_total", "drift", "certificate_expires"),
    )
)
"""The facts of a host of which nothing is known."""


def fleet_status(hosts: Sequence[Mapping[str, Any]], now: str) -> list[dict[str, Any]]:
    """The status of each host, those with problems first.

    hosts: hostvars with status_read, the result of host_info with its status; now: RFC 3339.
    """
    time = datetime.fromisoformat(now).astimezone(UTC)
    found = [host_status(each, time) for each in hosts]
    return sorted(found, key=lambda each: bool(each["ok"]))


def host_status(host: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """{"host", "ok", "problems", "notes"} of a host, and its facts, by the names of EMPTY."""
    read = host.get("status_read") or {}
    state = read.get("state")
    if state is None:
        problems, notes, facts = [_not_read(read)], [], EMPTY
    else:
        problems, notes, facts = problems_of(state, now), notes_of(state), facts_of(state)
    return {
        "host": str(host["inventory_hostname"]),
        "ok": not problems,
        # A host had a part in these texts, and they are shown in a terminal.
        "problems": [printable(each) for each in problems],
        "notes": [printable(each) for each in notes],
        **facts,
    }


def _not_read(read: Mapping[str, Any]) -> str:
    reason = (str(read.get("msg") or "").strip().splitlines() or ["no answer"])[0].rstrip(".")
    if read.get("unreachable"):
        return f"The host is not reached: {reason}. See whether the host is on and answers SSH."
    return f"The host cannot be read: {reason}. Run ansible -m ping for the host."


def facts_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a host has and runs, by the names of EMPTY; None for what is not known."""
    board, deployment, status = state["board"], state["deployment"], state["status"]
    sensors, end = status["sensors"], certificate_end(state)
    return {
        **EMPTY,
        **_release_facts(deployment),
        "board": board["name"] or board["model"] or board["kind"],
        "memory_used": sensors["memory_used"],
        "memory_total": board["memory_total"],
        "temperature": sensors["temperature"],
        "throttling": sorted(name for name, holds in sensors["throttling"].items() if holds),
        "power_mode": (board["power"] or {}).get("mode"),
        "watts": sensors["watts"],
        "watts_of": sensors["watts_of"],
        "disk_free": board["disk"]["free"],
        "disk_total": board["disk"]["total"],
        "drift": status["drift"],
        "certificate_expires": None if end is None else f"{end:%Y-%m-%dT%H:%M:%SZ}",
    }


def _release_facts(deployment: Mapping[str, Any]) -> dict[str, Any]:
    release = deployment["release"]
    if release is None:
        return {}
    plan, containers = release["plan"], deployment["containers"]
    return {
        "provider": plan["provider"],
        "model": plan["model"]["name"],
        "model_files": [
            {name: each[name] for name in ("place", "sha256")} for each in plan["model"]["files"]
        ],
        "release": release["number"],
        "released_at": release.get("made"),
        "image": plan["engine"]["image"],
        "engine": _health(containers.get("engine")),
        "chat_api": _health(containers.get("api")),
        "gpu_layers": gpu_layers(deployment["engine_log"]),
    }


def _health(container: Mapping[str, Any] | None) -> str:
    if container is None:
        return "missing"
    if container["status"] != "running":
        return str(container["status"])
    return str(container["health"] or "running")
