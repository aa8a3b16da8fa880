"""A host that serves, as host_info with its status reads it."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from tests.certificates import NOW, authority, certificate_text, issue
from tests.unit.edge_fleet.conftest import JETSON, OWN_IMAGE

TIME = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
SOCKET: dict[str, Any] = {
    "addresses": ["0.0.0.0"],
    "process": "systemd (pid 1)",
    "container": None,
    "unit": "edge-llm-sockets.socket",
}
OFFLOADED: dict[str, Any] = {
    "layers_offloaded": 29,
    "layers_total": 29,
    "gpu_buffers": ["CUDA0"],
    "platform": None,
    "gpu_said": [],
    "gpu_reason": None,
    "start_seconds": 7.0,
}
PLAN: dict[str, Any] = {
    "provider": "llama.cpp",
    "model": {
        "name": "smollm2-135m",
        "files": [{"path": "m.gguf", "place": "owner/m/resolve/1/m.gguf", "sha256": "a" * 64}],
    },
    "engine": {"image": OWN_IMAGE},
    "api": {"listen_address": "", "tls": True},
    "gpu": {"required": True, "layers": 29, "of": 29},
    "network": {},
}


def certificate(days: int) -> str:
    """A certificate that expires after so many days."""
    issuer = authority(days=4000)
    return certificate_text(issue(issuer, ["DNS:orin"], NOW - timedelta(days=100), 100 + days))


def healthy() -> dict[str, Any]:
    """A host without problems and notes: a Jetson that serves by HTTPS."""
    state = copy.deepcopy(JETSON)
    up = {"status": "running", "health": "healthy", "namespace": "net:[4026532190]"}
    state["ports"] = dict.fromkeys(state["ports"], copy.deepcopy(SOCKET))
    state["deployment"] |= {
        "containers": {
            "engine": up | {"image": OWN_IMAGE},
            "api": up | {"image": "api:1"},
            "network": up | {"image": "api:0", "health": None},
        },
        "installed": {"edge-llm.service": "in place"},
        "engine_log": dict(OFFLOADED),
        "release": {
            "number": 7,
            "made": f"{NOW - timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}",
            "plan": copy.deepcopy(PLAN),
        },
    }
    state["status"] = {
        "drift": [],
        "certificate": certificate(60),
        "sensors": {
            "memory_used": 3 * 1024**3,
            "temperature": 51.5,
            "watts": 9.76,
            "watts_of": "INA3221: VDD_IN",
            "throttling": {"temperature": False, "gpu-throttle-alert": False},
        },
    }
    return state


def host(name: str, state: dict[str, Any] | None = None, **read: Any) -> dict[str, Any]:
    """The hostvars of a host after its read."""
    return {
        "inventory_hostname": name,
        "status_read": read if state is None else {"state": state},
    }
