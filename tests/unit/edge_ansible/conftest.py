"""A fleet without boards: site.yml over recorded facts, and a chat API that answers as scripted."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_fleet.control_files import client_environment
from edge_fleet.host_archive import build
from edge_host.constants import SOCKETS_UNIT
from edge_host.release_record import hash_text
from tests.unit.edge_fleet.conftest import JETSON
from tests.unit.llm_provider.scripted import (
    KEY,
    READY,
    Change,
    Scripted,
    paced,
    reply,
    serving,
    streamed,
    whole,
)

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
DIGEST = "sha256:" + "a" * 64
SETTINGS: dict[str, Any] = {
    "llm_api_key": KEY,
    "llm_gpu_required": True,
    "llm_image": f"registry.example:5000/engine@{DIGEST}",
    "llm_api_base_image": f"registry.example:5000/python@{DIGEST}",
    "llm_model": "llama-3.2-3b-instruct",
}


class Fleet:
    """Hosts of an inventory, each with a file of facts; runs of playbooks over them."""

    def __init__(self, folder: Path, server: Scripted, planned: dict[str, Any]) -> None:
        self.folder = folder
        self.server = server
        self.planned = planned
        self.hosts: dict[str, dict[str, Any]] = {}
        (folder / "hosts").mkdir()
        (folder / "secrets").mkdir(mode=0o700)
        self.answer({})

    def answer(self, change: Change) -> None:
        """Have the chat API answer as the planned one does, save where `change` says otherwise."""
        self.server.reset({**answers(self.planned["plan"]), **change})

    def add(self, name: str, facts: dict[str, Any] | None, **variables: Any) -> None:
        """A host with facts; without facts one that does not answer."""
        path = self.folder / "hosts" / f"{name}.json"
        if facts is not None:
            path.write_text(json.dumps(facts))
            variables["recorded_facts"] = str(path)
        client = self.folder / "secrets" / f"{name}.env"
        client.write_text(client_environment(self.server.url, KEY))
        client.chmod(0o600)
        self.hosts[name] = variables

    def inventory(self) -> Path:
        variables = {
            **settings(self.folder, self.server),
            "ansible_connection": "recorded",
            "recorded_log": str(self.folder / "calls"),
        }
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": self.hosts}}))
        return path

    def run(self, *words: str, playbook: str = "site.yml") -> subprocess.CompletedProcess[str]:
        """Run a playbook to its end."""
        (self.folder / "calls").unlink(missing_ok=True)
        return ansible(self.inventory(), playbook, *words)

    def calls(self) -> list[dict[str, Any]]:
        """The commands that hosts got in the last run."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def settings(folder: Path, server: Scripted) -> dict[str, Any]:
    return SETTINGS | {
        "board_url": server.url,
        "board_secrets_dir": str(folder / "secrets"),
        "board_facts_file": str(folder / "facts/{{ inventory_hostname }}.json"),
    }


def answers(plan: dict[str, Any], model: str = "") -> Change:
    """Those of a chat API that serves a plan, with another model's name where one is given."""
    settings, name = plan["environment"], model or plan["model"]["name"]
    return {
        "ready": reply(
            READY
            | {
                "model": name,
                "provider": plan["provider"],
                "context_size": settings["CTX_SIZE"],
                "parallel": settings["PARALLEL"],
            }
        ),
        "models": reply({"data": [{"id": name}]}),
        "chat": reply(whole(model=name)),
        "stream": paced(*streamed(model=name)),
    }


def ansible(inventory: Path, playbook: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, *words,
            playbook,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CONNECTION_PLUGINS": str(HERE / "connection_plugins"),
            "ANSIBLE_FORCE_COLOR": "false",
        },
    )  # fmt: skip


def in_place(planned: dict[str, Any]) -> dict[str, Any]:
    """The facts of a host that has all that is planned for it."""
    plan, state = planned["plan"], copy.deepcopy(JETSON)
    hashes = {name: hash_text(text) for name, text in planned["files"].items()}
    container: dict[str, Any] = {
        "id": "c",
        "status": "running",
        "health": "healthy",
        "namespace": "net:[1]",
        "started_at": "2026-11-30T10:00:00Z",
        "settings": {
            "user": "10010:10010",
            "privileged": False,
            "read_only": True,
            "cap_drop": ["ALL"],
            "cap_add": [],
            "security_opt": ["no-new-privileges:true"],
            "restart": "unless-stopped",
        },
    }
    listener = {"addresses": ["0.0.0.0"], "process": None, "container": None, "unit": SOCKETS_UNIT}
    state["docker"] |= {
        "daemon_json": plan["docker"]["daemon_json"],
        "runtimes": ["runc", "nvidia"],
        "live_restore": True,
        "limits": {"memory": True, "pids_limit": True},
        "published_registry": False,
    }
    state["ports"] = dict.fromkeys(("8000", "11434"), listener)
    state["board"]["accounts"] = []
    state["models"] = {
        file["path"]: {
            "size": file["size"],
            "mtime_ns": 1,
            "recorded_sha256": file["sha256"],
            "bundle": plan["model"]["bundle"],
        }
        for file in plan["model"]["files"]
    }
    state["addresses"] = ["127.0.0.1"]
    state["deployment"] |= {
        "files": {
            f"engine/{name}" if name == "engine.env" else name: {
                "sha256": sha256, "mode": "0644", "uid": 0, "gid": 0,
            }
            for name, sha256 in hashes.items()
        },
        "secrets": dict.fromkeys(planned["secrets"], True),
        "access": [],
        "installed": dict.fromkeys(
            (build()[0], "edge-llm.service", SOCKETS_UNIT, "edge-llm-sockets.service"), "in place"
        ),
        "containers": {
            "engine": with_limits(container, plan["engine"], user="10011:10011")
            | {"image": plan["engine"]["image"]},
            "api": with_limits(container, plan["api"]) | {"image": planned["image"]},
            "network": container | {"image": planned["image"], "health": None},
        },
        "release": {
            "number": 1,
            "slots": {"engine": "a", "api": "a"},
            "plan": plan,
            "rendered": hashes,
            "written": hashes,
        },
        "images": [planned["image"], plan["engine"]["image"], *plan["images"]["outside"]],
        "engine_log": {
            "layers_offloaded": 29,
            "layers_total": 29,
            "gpu_buffers": ["CUDA0"],
            "platform": None,
            "gpu_said": [],
            "gpu_reason": None,
            "start_seconds": 2.0,
        },
    }  # fmt: skip
    return state


def with_limits(container: dict[str, Any], planned: dict[str, Any], **more: str) -> dict[str, Any]:
    """A container with the limits of its plan, and further settings."""
    limits = {"memory": planned["memory_limit"], "pids_limit": planned["pids_limit"]}
    return container | {"settings": container["settings"] | limits | more}


@pytest.fixture(scope="session")
def chat_api() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory, chat_api: Scripted) -> dict[str, Any]:
    """What the roles plan for a Jetson: plan, files of the release, image, secrets."""
    folder = tmp_path_factory.mktemp("planned")
    facts = copy.deepcopy(JETSON)
    (folder / "facts").mkdir()
    (folder / "facts/a.json").write_text(json.dumps(facts))
    inventory = folder / "hosts.yml"
    variables = settings(folder, chat_api) | {"planned_file": str(folder / "planned.json")}
    inventory.write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": {"a": None}}}))
    done = ansible(inventory, str(HERE / "in_place.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "planned.json").read_text())
    assert found["plan"]["problems"] == []
    # Once the host has them.
    found["plan"]["model"]["present"] = True
    return found


@pytest.fixture
def fleet(tmp_path: Path, chat_api: Scripted, planned: dict[str, Any]) -> Fleet:
    return Fleet(tmp_path, chat_api, planned)
