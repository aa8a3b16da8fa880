"""Catalogues as shipped, and hosts as the host_info module describes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]

JETSON: dict[str, Any] = {
    "board": {
        "kind": "jetson",
        "model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "arch": "aarch64",
        "userland_bits": 64,
        "os": {
            "id": "ubuntu",
            "version_id": "22.04",
            "pretty_name": "Ubuntu 22.04.5 LTS",
        },
        "l4t": {"major": 36, "minor": 4, "patch": 3, "text": "36.4.3"},
        "cpus": 8,
        "cpu_features": ["asimddp"],
        "memory_total": 8 * 1024**3,
        "disk": {"path": "/", "free": 50 * 1024**3, "total": 100 * 1024**3},
        "python": "3.10.12",
        "init": "systemd",
        "nvidia_runtime": "/usr/bin/nvidia-container-runtime",
        "gpu_groups": [44],
        "root": True,
        "name": "Jetson Orin NX",
        "kernel": {"release": "5.15.148-tegra", "memory_cgroup": True},
        "boot": {"file": None, "file_words": [], "lines": 0, "words": []},
        "zram_total": 0,
        "gpus": [],
        "power": {"mode": "MAXN", "id": 0, "modes": {"MAXN": 0, "15W": 1, "25W": 2}},
        "tuning": {"clocks": False, "clocks_unit": False, "fan": "quiet"},
        "temperature": 45.0,
        "throttled": None,
        "desktop": None,
        "container": False,
        "time_synchronised": True,
        "upgrades": {"unattended": False, "held": []},
        "tools": ["curl"],
        "addresses": ["192.0.2.11"],
    },
    "docker": {
        "cli": True,
        "ce": False,
        "error": None,
        "running": True,
        "version": "27.5.1",
        "compose": "2.32.4",
        "runtimes": ["runc"],
        "daemon_json": None,
        "daemon_json_error": None,
        "packages": ["containerd", "docker.io"],
        "swarm": False,
        "live_restore": False,
        "containers": 0,
    },
    "ports": {"8000": None, "11434": None},
    "deployment": {
        "files": {"docker-compose.yml": None, ".env": None, "engine/engine.env": None},
        "secrets": {"api_keys": False, "api_keys.jsonl": False, "engine_key": False},
        "plain_keys": False,
        "containers": {"engine": None, "api": None, "network": None},
        "installed": {},
        "release": None,
        "previous": None,
        "change": None,
        "lock": None,
        "history": [],
        "images": [],
        "engine_log": None,
        "ollama": {},
    },
    "models": {},
    "unfinished": {},
}

OWN_IMAGE = "registry.example:5000/engine@sha256:" + "a" * 64


def change(state: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `state` with the value at a dotted path replaced."""
    changed = copy.deepcopy(state)
    *parents, last = path.split(".")
    place = changed
    for name in parents:
        place = place[name]
    place[last] = value
    return changed


@pytest.fixture(scope="session")
def catalogues() -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in ("models", "engines", "boards"):
        merged |= yaml.safe_load((ROOT / f"{name}.yml").read_text())
    return merged


@pytest.fixture
def jetson() -> dict[str, Any]:
    return copy.deepcopy(JETSON)


@pytest.fixture
def pi() -> dict[str, Any]:
    state = copy.deepcopy(JETSON)
    state["board"] |= {
        "kind": "pi",
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "name": "Raspberry Pi 5",
        "l4t": None,
        "cpus": 4,
        "nvidia_runtime": None,
        "kernel": {"release": "6.12.47+rpt-rpi-2712", "memory_cgroup": True},
        "boot": {
            "file": "/boot/firmware/cmdline.txt",
            "file_words": ["cgroup_enable=memory"],
            "lines": 1,
            "words": ["cgroup_disable=memory", "cgroup_enable=memory"],
        },
        "power": None,
        "tuning": {"clocks": False, "clocks_unit": False, "fan": None},
        "throttled": [],
        "os": {
            "id": "debian",
            "version_id": "13",
            "pretty_name": "Debian GNU/Linux 13 (trixie)",
        },
    }
    return state


Change = Callable[[dict[str, Any], str, Any], dict[str, Any]]


@pytest.fixture
def changed() -> Change:
    return change
