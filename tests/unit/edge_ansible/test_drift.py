"""Every kind of drift is noticed where all hosts are compared at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edge_fleet.container_drift import altered_parts
from edge_fleet.fleet_comparison import differences
from tests.unit.edge_fleet.conftest import change

from .conftest import in_place

KEYS = "the keys are not as planned"
RELEASE = "the release is another one, or its files were edited"
WEIGHTS = "weights are missing or to be removed"
DOCKER = "Docker is not as planned"
CONTAINERS = "deployment.containers"


def found(
    planned: dict[str, Any], state: dict[str, Any], control: tuple[str, ...] = (), **plan: Any
) -> list[str]:
    host = {
        "preflight_state": state,
        "preflight_plan": planned["plan"] | plan,
        "preflight_tls": {"issue": ""},
        "stack_bundle": {"image": planned["image"]},
    }
    return differences(host, planned["files"], control)


def test_a_host_in_place_has_no_difference(planned: dict[str, Any]) -> None:
    assert found(planned, in_place(planned)) == []


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("docker.running", False, DOCKER),
        ("docker.daemon_json", {"debug": True}, DOCKER),
        ("docker.runtimes", ["runc"], DOCKER),
        ("docker.compose", None, DOCKER),
        ("docker.own_registries", ["192.0.2.9:5000"], DOCKER),
        ("docker.published_registry", True, "a registry of an earlier version runs"),
        ("ports.8000", None, "nobody listens on port 8000"),
        ("ports.11434", None, "nobody listens on port 11434"),
        ("ports.8000.unit", None, "systemd does not hold port 8000"),
        (
            "ports.8000.addresses",
            ["192.0.2.1"],
            "systemd listens at 192.0.2.1, not at all addresses",
        ),
        ("deployment.secrets.engine_key", False, KEYS),
        ("deployment.release", None, "the host has no release"),
        ("deployment.release.rendered", {}, RELEASE),
        ("deployment.release.plan.model.digest", "another", RELEASE),
        ("deployment.change", {"from": 1, "to": 2}, "a change was interrupted"),
        ("deployment.images", [], "the chat API's image is missing"),
        (f"{CONTAINERS}.engine", None, "the container of the engine is missing"),
        (f"{CONTAINERS}.engine.image", "another", "the container of the engine has another image"),
        (f"{CONTAINERS}.api.image", "another", "the container of the chat API has another image"),
        (
            f"{CONTAINERS}.api.status",
            "exited",
            "the container of the chat API does not run: it is exited",
        ),
        (
            f"{CONTAINERS}.network.status",
            "exited",
            "the container of the network namespace does not run: it is exited",
        ),
        (f"{CONTAINERS}.engine.health", "unhealthy", "the container of the engine is unhealthy"),
        (f"{CONTAINERS}.api.health", "starting", "the container of the chat API is starting"),
        (
            f"{CONTAINERS}.engine.namespace",
            "net:[2]",
            "edge-llm-network was restarted alone, so that the containers are in different network"
            " namespaces",
        ),
        ("models", {}, WEIGHTS),
    ],
)
def test_drift_on_the_host(planned: dict[str, Any], path: str, value: object, reason: str) -> None:
    assert reason in found(planned, change(in_place(planned), path, value))


@pytest.mark.parametrize("name", ["docker-compose.yml", ".env", "engine/engine.env"])
def test_a_file_that_was_edited_or_removed(planned: dict[str, Any], name: str) -> None:
    edited, removed = in_place(planned), in_place(planned)
    edited["deployment"]["files"][name]["sha256"] = "0" * 64
    removed["deployment"]["files"][name] = None
    assert found(planned, edited) == found(planned, removed) == [RELEASE]


@pytest.mark.parametrize("name", ["edge_host-0.pyz", "edge-llm.service", "edge-llm-sockets.socket"])
def test_the_program_and_the_units_of_this_version(planned: dict[str, Any], name: str) -> None:
    state = in_place(planned)
    state["deployment"]["installed"][name] = "different"
    assert found(planned, state) == [f"not as this version installs them: {name} (different)"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "0:0"),
        ("privileged", True),
        ("read_only", False),
        ("cap_drop", []),
        ("cap_add", ["SYS_ADMIN"]),
        ("security_opt", ["seccomp=unconfined", "no-new-privileges:true"]),
        ("restart", "no"),
        ("memory", 0),
        ("pids_limit", 0),
    ],
)
@pytest.mark.parametrize(("part", "called"), [("engine", "engine"), ("api", "chat API")])
def test_a_container_that_was_changed_by_hand(
    planned: dict[str, Any], part: str, called: str, name: str, value: object
) -> None:
    state = change(in_place(planned), f"{CONTAINERS}.{part}.settings.{name}", value)
    assert found(planned, state) == [f"the container of the {called} has other settings: {name}"]
    assert altered_parts(state, planned["files"]) == [part]


def test_settings_that_say_the_same(planned: dict[str, Any]) -> None:
    state = in_place(planned)
    settings = state["deployment"]["containers"]["api"]["settings"]
    settings["security_opt"] = ["no-new-privileges"]
    # A kernel without these limits drops them.
    settings["memory"] = settings["pids_limit"] = 0
    state["docker"]["limits"] = {"memory": False, "pids_limit": False}
    # As facts of an earlier version.
    del state["deployment"]["containers"]["engine"]["settings"]
    assert found(planned, state) == []
    # Which outlives releases, with the limits of the one that made it.
    state["deployment"]["containers"]["network"]["settings"]["memory"] = 1
    assert found(planned, state) == []


def test_owners_and_modes(planned: dict[str, Any]) -> None:
    state = in_place(planned)
    state["deployment"]["access"] = ["/opt/edge-llm/secrets", "/opt/edge-llm/releases/0001/.env"]
    assert found(planned, state) == [
        "owner, group or mode differ: /opt/edge-llm/secrets, /opt/edge-llm/releases/0001/.env"
    ]


@pytest.mark.parametrize("field", ["recorded_sha256", "size"])
def test_weights_that_were_changed_or_never_verified(planned: dict[str, Any], field: str) -> None:
    state = in_place(planned)
    next(iter(state["models"].values()))[field] = None
    assert WEIGHTS in found(planned, state)


def test_the_keys_of_clients(planned: dict[str, Any]) -> None:
    state = in_place(planned)
    state["deployment"]["secrets"]["api_keys.jsonl"] = False
    assert found(planned, state) == [KEYS]


def test_what_the_inventory_asks_for_now(planned: dict[str, Any]) -> None:
    state = in_place(planned)
    changed = copy.deepcopy(planned)
    changed["files"][".env"] += "CTX_SIZE=8192\n"
    assert found(changed, state) == [RELEASE]
    assert found(planned, state, problems=["no"]) == ["the plan is refused"]
    pending = planned["plan"]["known_issues"] | {"fixes": {"fan": "cool"}}
    assert found(planned, state, known_issues=pending) == ["known issues are to be fixed"]
    reboot = planned["plan"]["known_issues"] | {"reboot": ["x"], "may_reboot": True}
    assert found(planned, state, known_issues=reboot) == ["known issues are to be fixed"]
    another = planned["plan"]["model"] | {"digest": "another"}
    assert found(planned, state, model=another) == [RELEASE]


def test_files_of_the_control_machine(planned: dict[str, Any]) -> None:
    assert found(planned, in_place(planned), ("a.env: a new file",)) == [
        "on the control machine, a.env: a new file"
    ]
