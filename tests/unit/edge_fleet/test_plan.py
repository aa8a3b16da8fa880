"""The plan: what it decides, and each sentence with which it refuses."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from edge_fleet.drift import (
    docker_in_place,
    installation_drift,
    release_differences,
    release_in_place,
    stack_in_place,
    weights_in_place,
)
from edge_fleet.plan.build import Request, build, deployment_plan
from edge_fleet.plan.docker import merge_daemon_json
from edge_host.constants import DOOR
from tests.unit.edge_fleet.conftest import OWN_IMAGE, Change

MIB = 1024**2
IMAGE: dict[str, Any] = {"llm_image": OWN_IMAGE}


def test_an_8_core_orin_nx_gets_the_measured_settings(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = deployment_plan(jetson, "orin", IMAGE, catalogues)
    assert plan["problems"] == []
    assert plan["environment"] == {
        "LLM_PROVIDER": "llamacpp",
        "LLM_MODEL": "llama-3.2-3b-instruct",
        "MODEL_PATH": "/models/Llama-3.2-3B-Instruct-Q4_K_M.gguf",
        "CTX_SIZE": 4096,
        "N_GPU_LAYERS": 99,
        "THREADS": 6,
        "PARALLEL": 4,
        "CTX_TOTAL": 4 * 4096,
        "BATCH": 2048,
        "UBATCH": 512,
        "FLASH_ATTENTION": "auto",
        "CACHE_TYPE": "f16",
        # 28 layers of 8 heads of 128: 114,688 bytes a token, and 256 tokens to spare.
        "KV_CACHE_BYTES": 114_688 * (4096 + 256),
        "LLM_MODEL_ALIASES": "",
        "HARDWARE": "jetson",
        "ENGINE_IMAGE": OWN_IMAGE,
    }
    assert plan["gpu"] == {
        "layers": 99,
        "of": 29,
        "required": True,
        "runtime": "nvidia",
        "groups": [44],
    }
    assert plan["memory"]["kv_cache"] == 448 * MIB
    assert plan["docker"]["packages"] == []
    assert plan["docker"]["daemon_json"]["runtimes"]["nvidia"]["path"] == (
        "/usr/bin/nvidia-container-runtime"
    )


def test_a_pi_gets_ollama_by_the_table_without_a_gpu(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = deployment_plan(pi, "pi", {"llm_model": "smollm2-135m"}, catalogues)
    assert plan["problems"] == []
    assert plan["provider"] == "ollama"
    assert plan["engine"]["image"].startswith("docker.io/ollama/ollama:0.34.0@sha256:")
    assert plan["gpu"] == {
        "layers": 0,
        "of": 31,
        "required": False,
        "runtime": None,
        "groups": [],
    }
    assert plan["environment"]["THREADS"] == 4
    assert plan["api"]["architecture"] == "arm64"


def test_a_plan_cannot_be_changed(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    request = Request(jetson, "orin", IMAGE, catalogues, "/opt", None, None)
    plan, problems = build(request)
    assert problems == []
    assert plan is not None
    with pytest.raises(FrozenInstanceError):
        plan.options.parallel = 1  # type: ignore[misc] # this is what is tested
    for mapping in (plan.engine.variables, plan.docker.daemon_json, plan.model.shape):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index] # this is what is tested
    assert isinstance(plan.docker.daemon_json["runtimes"]["nvidia"]["runtimeArgs"], tuple)


def test_releases_of_other_versions_find_their_keys(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """Programs on hosts read these in release.json, whichever version wrote the file."""
    plan = json.loads(json.dumps(deployment_plan(jetson, "orin", IMAGE, catalogues)))
    read = {
        "": ("host", "provider", "url"),
        "model": ("name", "digest", "files", "proof"),
        "environment": ("CTX_SIZE", "PARALLEL"),
        "gpu": ("layers", "of", "required"),
        "memory": ("total", "system"),
        "api": ("base_image",),
        "engine": ("image",),
    }
    for part, keys in read.items():
        assert set(keys) <= set(plan[part] if part else plan), part
    assert {"path", "size", "sha256"} <= set(plan["model"]["files"][0])
    assert set(plan["model"]["proof"]) == {"prompt", "answer"}


def test_the_plan_changes_no_input(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    before = copy.deepcopy((jetson, catalogues))
    given = IMAGE | {"board_docker_options": {"registry-mirrors": ["m"]}}
    deployment_plan(jetson, "orin", given, catalogues)
    assert (jetson, catalogues) == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"llm_provider": "lamacpp"},
            "orin: llm_provider is invalid: 'lamacpp'. Did you mean llamacpp?"
            " Use auto, llamacpp, ollama or vllm.",
        ),
        (
            {"llm_modle": "smoke"},
            "orin: llm_modle is invalid: the project has no variable of this name. Did you mean",
        ),
        ({"llm_model": "lama"}, "orin: llm_model is invalid: models.yml has no 'lama'."),
        (
            {"llm_provider": "vllm"},
            "orin: llm_model llama-3.2-3b-instruct is invalid: models.yml has no size and no sha256"
            " for its files, so a download could not be verified. Run `make lock"
            " MODEL=llama-3.2-3b-instruct`, which asks https://huggingface.co.",
        ),
        (
            {"llm_provider": "vllm", "llm_model": "qwen2.5-14b-instruct"},
            "orin: llm_model does not fit: vllm needs hf weights, and models.yml has none for"
            " qwen2.5-14b-instruct. Use llama-3.2-3b-instruct, smoke or smollm2-135m.",
        ),
        ({"llm_image": "mine@sha256:12"}, "orin: llm_image is invalid: the host does not"),
        (
            {"llm_context_size": 131073},
            "orin: llm_context_size does not fit: 131073, and llama-3.2-3b-instruct was trained for"
            " 131072 tokens. Use at most 131072.",
        ),
        (
            {"llm_context_size": 131072},
            "orin: llama-3.2-3b-instruct does not fit: with llm_context_size 131072 and"
            " llm_parallel 4 it needs 17,514 MiB of memory (weights 1,926 MiB, KV cache 14,336 MiB,"
            " compute 206 MiB, engine 294 MiB, system 752 MiB), and the host has 8,192 MiB."
            " One of these would fit: llm_context_size: 46592; llm_model: llama-3.2-1b-instruct.",
        ),
        (
            {"llm_image": "mine:1"},
            "orin: llm_image is invalid: the host does not have mine:1. Use mine:1@sha256:..., so",
        ),
        (
            {"llm_cache_type": "q8_0", "llm_flash_attention": False},
            "orin: llm_cache_type does not fit: q8_0 needs flash attention, and llm_flash_attent",
        ),
        (
            {"llm_provider": "vllm", "llm_model": "smoke", "llm_cache_type": "q8_0"},
            "orin: llm_cache_type does not fit: vllm with its image for this board does not",
        ),
    ],
)
def test_what_is_asked_and_cannot_work_is_refused(
    jetson: dict[str, Any], catalogues: dict[str, Any], given: dict[str, Any], sentence: str
) -> None:
    plan = deployment_plan(jetson, "orin", IMAGE | given, catalogues)
    assert list(plan) == ["problems"]
    assert sum(sentence in problem for problem in plan["problems"]) == 1


def test_aliases_reach_the_chat_api(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    names = ["gpt-4o-mini", "meta-llama/Llama-3.2-3B:instruct"]
    plan = deployment_plan(jetson, "orin", IMAGE | {"llm_model_aliases": names}, catalogues)
    assert plan["environment"]["LLM_MODEL_ALIASES"] == ",".join(names)


def test_ollama_on_a_jetson_is_told_its_jetpack(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = deployment_plan(jetson, "orin", {"llm_provider": "ollama"}, catalogues)
    assert plan["engine"]["variables"]["JETSON_JETPACK"] == "6"


LISTENER = {"addresses": ["0.0.0.0"], "process": "nginx (pid 12)", "container": None}
SOCKET = LISTENER | {"process": "systemd (pid 1)", "unit": "edge-llm-sockets.socket"}


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("board.arch", "armv7l", "does not fit: armv7l with a 64-bit userland. Use a 64-bit"),
        ("board.userland_bits", 32, "does not fit: aarch64 with a 32-bit userland"),
        (
            "board.os",
            {"id": "alpine", "version_id": "3.20", "pretty_name": "Alpine Linux v3.20"},
            "the host's system does not fit: Alpine Linux v3.20. Use debian 12, debian 13, ubuntu",
        ),
        (
            "board.init",
            "openrc",
            "the host's init does not fit: openrc. Use a system with systemd.",
        ),
        ("board.l4t", None, "the L4T release is missing: /etc/nv_tegra_release of"),
        (
            "board.l4t",
            {"major": 32, "minor": 7, "patch": 1, "text": "32.7.1"},
            "the L4T release does not fit: 32.7.1. Use a release from 35.0 up to, but not",
        ),
        ("board.nvidia_runtime", None, "nvidia-container-runtime is missing: llm_gpu"),
        ("board.disk", {"path": "/opt", "free": MIB, "total": MIB}, "/opt has 1 MiB free."),
        ("board.memory_total", 1024 * MIB, "and the host has 1,024 MiB. "),
        ("ports.8000", LISTENER, "port 8000 is in use by nginx"),
        (
            "ports.11434",
            LISTENER | {"container": "ollama"},
            "port 11434 is in use by container ollama: the engine needs this port. Stop the other",
        ),
        (
            "deployment.lock",
            {"by": "alice@laptop", "since": "2026-11-22T10:00:00Z"},
            "the host is locked: alice@laptop has been changing it since 2026-11-22T10:00:00Z. Run",
        ),
        (
            "board.accounts",
            [
                {"kind": "user", "name": "alice", "id": 10011},
                {"kind": "group", "name": "staff", "id": 10013},
            ],
            "the ids of the project's users do not fit: on the host they belong to user alice"
            " (10011), group staff (10013). Give these accounts other ids (usermod --uid, groupmod"
            " --gid), and their files (chown).",
        ),
        ("board.root", False, "the host was read as another user. Set ansible_become: true"),
        ("docker.compose", "v2.17.3-x", "the host has v2.17.3-x. Install 2.18 or newer."),
        ("docker.daemon_json_error", "no JSON", "/etc/docker/daemon.json is invalid: no JSON."),
    ],
)
def test_a_host_that_cannot_serve_is_refused(
    jetson: dict[str, Any],
    catalogues: dict[str, Any],
    changed: Change,
    path: str,
    value: Any,
    sentence: str,
) -> None:
    plan = deployment_plan(changed(jetson, path, value), "orin", IMAGE, catalogues)
    assert len(plan["problems"]) == 1
    assert plan["problems"][0].startswith("orin: ")
    assert sentence in plan["problems"][0]


@pytest.mark.parametrize("version", ["20.04", "22.04", "24.04", "26.04"])
def test_ubuntu_brings_docker_and_its_plugin(
    pi: dict[str, Any], catalogues: dict[str, Any], changed: Change, version: str
) -> None:
    system = {"id": "ubuntu", "version_id": version, "pretty_name": f"Ubuntu {version}"}
    ubuntu = changed(changed(pi, "board.os", system), "docker.compose", None)
    plan = deployment_plan(ubuntu, "pi", {"llm_model": "smollm2-135m"}, catalogues)
    assert plan["problems"] == []


def test_docker_must_be_there_where_the_archive_lacks_compose(
    pi: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    bookworm = changed(pi, "board.os.version_id", "12")
    given = {"llm_model": "smollm2-135m"}
    assert deployment_plan(bookworm, "pi", given, catalogues)["problems"] == []
    without = changed(bookworm, "docker.compose", None)
    problems = deployment_plan(without, "pi", given, catalogues)["problems"]
    assert "the archive of debian 12 does not have the plugin. Install Docker CE" in problems[0]


@pytest.mark.parametrize(
    ("running", "compose", "packages"),
    [
        (False, None, ["docker.io", "docker-cli", "docker-compose"]),
        (True, None, ["docker-compose"]),
        (True, "2.26.1", []),
    ],
)
def test_only_what_is_missing_of_docker_is_installed(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    running: bool,
    compose: str | None,
    packages: list[str],
) -> None:
    pi["docker"] |= {"running": running, "compose": compose}
    plan = deployment_plan(pi, "pi", {"llm_model": "smollm2-135m"}, catalogues)
    assert plan["docker"]["packages"] == packages


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"compose": None}, "the compose plugin of Docker CE is missing: "),
        ({"running": False, "error": "dead"}, "Docker CE does not answer on the host: dead. Start"),
    ],
)
def test_docker_ce_is_never_replaced(
    pi: dict[str, Any], catalogues: dict[str, Any], change: dict[str, Any], sentence: str
) -> None:
    pi["docker"] |= {"ce": True} | change
    plan = deployment_plan(pi, "pi", {"llm_model": "smollm2-135m"}, catalogues)
    assert plan["problems"][0].startswith(f"pi: {sentence}")


def test_docker_options_that_need_a_restart_are_refused(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = IMAGE | {"board_docker_options": {"data-root": "/mnt"}}
    plan = deployment_plan(jetson, "orin", given, catalogues)
    assert "board_docker_options is invalid: data-root takes effect at a" in plan["problems"][0]


def test_variables_of_the_board_are_part_of_the_plan(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = IMAGE | {"board_fan": "cool", "board_reboot": "yes", "board_power_mode": "MAXN"}
    plan = deployment_plan(jetson, "orin", given, catalogues)
    assert plan["known_issues"] == {
        "notices": [],
        "fixes": {"fan": "cool"},
        "reboot": [],
        "may_reboot": True,
    }
    plan = deployment_plan(jetson, "orin", given | {"board_power_mode": "MAX"}, catalogues)
    assert plan["problems"] == [
        "orin: board_power_mode is invalid: 'MAX'. Did you mean MAXN? Use 15W, 25W or MAXN."
    ]


def test_layers_are_not_asked_onto_a_gpu_that_nothing_uses(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = {"llm_model": "smollm2-135m", "llm_gpu_layers": 10}
    assert (
        "no engine uses a Pi's GPU" in deployment_plan(pi, "pi", given, catalogues)["problems"][0]
    )


def test_systemd_may_hold_the_ports_for_the_project(
    catalogues: dict[str, Any], jetson: dict[str, Any], changed: Change
) -> None:
    held = LISTENER | {"process": "systemd (pid 1)", "unit": "edge-llm-sockets.socket"}
    state = changed(jetson, "ports.8000", held)
    assert deployment_plan(state, "jetson-01", {}, catalogues)["problems"] == []
    state = changed(jetson, "ports.8000", held | {"unit": "cockpit.socket"})
    (problem,) = deployment_plan(state, "jetson-01", {}, catalogues)["problems"]
    assert "port 8000 is in use by systemd for cockpit.socket: " in problem


def test_an_address_to_listen_at_is_one_of_the_hosts(
    catalogues: dict[str, Any], jetson: dict[str, Any], changed: Change
) -> None:
    variables = {"llm_listen_address": "192.0.2.10"}
    state = jetson | {"addresses": ["127.0.0.1", "192.0.2.10", "2001:db8::10"]}
    plan = deployment_plan(state, "jetson-01", variables, catalogues)
    assert plan["api"]["listen_address"] == "192.0.2.10"
    assert plan["environment"]["LLM_LISTEN_ADDRESS"] == "192.0.2.10"  # another one, another release
    state["addresses"] = ["127.0.0.1", "192.0.2.11", "2001:db8::10"]
    assert deployment_plan(state, "jetson-01", variables, catalogues)["problems"] == [
        "jetson-01: llm_listen_address does not fit: the host does not have 192.0.2.10. Its"
        " addresses are 192.0.2.11, 2001:db8::10. Use one of these."
    ]
    default = deployment_plan(state, "jetson-01", {}, catalogues)
    assert default["api"]["listen_address"] == ""
    assert "LLM_LISTEN_ADDRESS" not in default["environment"]
    # Facts of an earlier version.
    assert deployment_plan(jetson, "jetson-01", variables, catalogues)["problems"] == []


def test_an_address_has_no_effect_while_an_earlier_version_has_the_ports(
    catalogues: dict[str, Any], jetson: dict[str, Any], changed: Change
) -> None:
    def notices(state: dict[str, Any], **variables: str) -> list[str]:
        plan = deployment_plan(state, "jetson-01", variables, catalogues)
        assert plan["problems"] == []
        return [each for each in plan["known_issues"]["notices"] if "listen" in each]

    upgraded = changed(jetson, "ports.8000", LISTENER | {"container": "edge-llm-door"})
    assert notices(upgraded, llm_listen_address="192.0.2.10") == [
        "llm_listen_address 192.0.2.10 has no effect before the next boot: the container"
        " edge-llm-door of an earlier version listens at port 8000 of all addresses until then."
        " Reboot the host when a pause suits."
    ]
    assert notices(upgraded) == []
    held = LISTENER | {"process": "systemd (pid 1)", "unit": "edge-llm-sockets.socket"}
    booted = changed(jetson, "ports.8000", held)
    assert notices(booted, llm_listen_address="192.0.2.10") == []
    assert notices(jetson, llm_listen_address="192.0.2.10") == []


@pytest.mark.parametrize("container", ["edge-llm-door", "edge-llm-api"])
def test_own_containers_may_hold_the_ports(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change, container: str
) -> None:
    state = changed(jetson, "ports.8000", LISTENER | {"container": container})
    assert deployment_plan(state, "orin", IMAGE, catalogues)["problems"] == []


def test_a_docker_that_starts_may_hold_the_ports(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    proxy = LISTENER | {"container": None, "process": "docker-proxy (pid 7)"}
    state = changed(jetson, "ports.8000", proxy)
    problems = deployment_plan(state, "orin", IMAGE, catalogues)["problems"]
    assert "in use by docker-proxy (pid 7)" in problems[0]  # Docker runs, and it is none of its own
    starting = changed(changed(state, "docker.running", False), "docker.error", "not yet")
    problems = deployment_plan(starting, "orin", IMAGE, catalogues)["problems"]
    assert not [each for each in problems if "port 8000" in each]


def test_all_problems_of_a_host_are_told_at_once(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    state = changed(jetson, "board.init", "openrc")
    plan = deployment_plan(state, "orin", {"llm_modle": "x", "llm_model": "y"}, catalogues)
    begins = ("orin: llm_modle is invalid", "orin: the host's init does", "orin: llm_model is")
    for problem, begin in zip(plan["problems"], begins, strict=True):
        assert problem.startswith(begin)


def test_weights_are_present_only_where_the_size_is_right(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    file = "Llama-3.2-3B-Instruct-Q4_K_M.gguf"
    for size, present in ((2019377696, True), (12, False)):
        state = changed(jetson, "models", {file: {"size": size, "recorded_sha256": None}})
        assert deployment_plan(state, "orin", IMAGE, catalogues)["model"]["present"] is present


def test_a_bare_tag_is_accepted_where_the_host_has_it(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    state = changed(jetson, "deployment.images", ["mine:1"])
    plan = deployment_plan(state, "orin", {"llm_image": "mine:1"}, catalogues)
    assert plan["engine"]["image"] == "mine:1"


def test_daemon_json_keeps_what_a_person_wrote(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    theirs = {"log-level": "warn", "insecure-registries": ["old:1"], "runtimes": {"x": {}}}
    state = changed(jetson, "docker.daemon_json", theirs)
    given = IMAGE | {"board_docker_options": {"insecure-registries": ["new:1"]}}
    plan = deployment_plan(state, "orin", given, catalogues)
    merged = plan["docker"]["daemon_json"]
    assert merged["log-level"] == "warn"
    assert merged["insecure-registries"] == ["old:1", "new:1"]
    assert set(merged["runtimes"]) == {"x", "nvidia"}
    again = changed(jetson, "docker.daemon_json", merged)
    second = deployment_plan(again, "orin", given, catalogues)
    assert second["docker"]["daemon_json"] == merged


@pytest.mark.parametrize(
    ("text", "planned", "merged"),
    [
        ("", {"live-restore": True}, {"live-restore": True}),
        (" \n", {}, {}),
        (
            '{"proxies": {"http-proxy": "p"}, "debug": true}',
            {"debug": False, "live-restore": True},
            {"proxies": {"http-proxy": "p"}, "debug": False, "live-restore": True},
        ),
        # The project's registry goes with the plan that had it.
        ('{"insecure-registries": ["old:1"], "icc": false}', {}, {"icc": False}),
        (
            '{"runtimes": {"x": {}}}',
            {"runtimes": {"x": {}, "y": {}}},
            {"runtimes": {"x": {}, "y": {}}},
        ),
    ],
)
def test_planned_options_are_merged_into_the_file(
    text: str, planned: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert merge_daemon_json(text, planned) == merged


@pytest.mark.parametrize(
    ("theirs", "options", "swarm", "wanted"),
    [
        (None, {}, False, True),
        ({"debug": True}, {}, False, True),
        # Whoever turned it off has a reason.
        ({"live-restore": False}, {}, False, False),
        ({"live-restore": False}, {"live-restore": True}, False, True),
        ({"live-restore": True}, {"live-restore": False}, False, False),
        # Docker does not start with it in a swarm.
        (None, {}, True, None),
    ],
)
def test_a_restart_of_docker_leaves_containers_running(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change,
    theirs: dict[str, Any] | None, options: dict[str, Any], swarm: bool, wanted: bool | None,
) -> None:  # fmt: skip
    state = changed(changed(jetson, "docker.daemon_json", theirs), "docker.swarm", swarm)
    plan = deployment_plan(state, "orin", IMAGE | {"board_docker_options": options}, catalogues)
    assert plan["problems"] == []
    assert plan["docker"]["daemon_json"].get("live-restore") is wanted


def test_live_restore_of_dockers_command_is_not_in_its_file_too(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    """Docker does not start with an option in both."""
    state = changed(jetson, "docker.live_restore", True)
    plan = deployment_plan(state, "orin", IMAGE, catalogues)
    assert "live-restore" not in plan["docker"]["daemon_json"]
    # Once the file has it, it stays there.
    state = changed(state, "docker.daemon_json", {"live-restore": True})
    plan = deployment_plan(state, "orin", IMAGE, catalogues)
    assert plan["docker"]["daemon_json"]["live-restore"] is True


def test_live_restore_is_refused_in_a_swarm(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    given = IMAGE | {"board_docker_options": {"live-restore": True}}
    plan = deployment_plan(changed(jetson, "docker.swarm", True), "orin", given, catalogues)
    assert plan["problems"] == [
        "orin: board_docker_options does not fit: live-restore is set, and the host is a node of a"
        " swarm, where Docker does not start with it. Remove the option."
    ]


def test_facts_of_an_earlier_version_say_nothing_of_a_swarm(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    del jetson["docker"]["swarm"], jetson["docker"]["live_restore"]
    plan = deployment_plan(jetson, "orin", IMAGE, catalogues)
    assert plan["docker"]["daemon_json"]["live-restore"] is True


def test_docker_in_place(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    plan = deployment_plan(jetson, "orin", IMAGE, catalogues)
    assert not docker_in_place(jetson, plan)
    state = changed(jetson, "docker.daemon_json", plan["docker"]["daemon_json"])
    state["docker"]["runtimes"].append("nvidia")
    assert docker_in_place(state, plan)
    for path, value in (("running", False), ("compose", None), ("runtimes", ["runc"])):
        assert not docker_in_place(changed(state, f"docker.{path}", value), plan)


def test_weights_in_place(pi: dict[str, Any], catalogues: dict[str, Any], changed: Change) -> None:
    plan = deployment_plan(pi, "pi", {"llm_model": "smollm2-135m"}, catalogues)
    model = plan["model"]
    assert not weights_in_place(pi, plan)
    (file,) = model["files"]
    there = {"size": file["size"], "recorded_sha256": file["sha256"]}
    state = changed(pi, "models", {file["path"]: there})
    assert not weights_in_place(state, plan), "Ollama does not know the file yet"
    state["deployment"]["ollama"] = {"smollm2-135m": [file["sha256"]]}
    assert weights_in_place(state, plan)
    rehash = deployment_plan(
        state, "pi", {"llm_model": "smollm2-135m", "llm_models_rehash": "true"}, catalogues
    )
    assert not weights_in_place(state, rehash)
    for wrong in ({"size": 1}, {"recorded_sha256": None}, {"recorded_sha256": "0" * 64}):
        assert not weights_in_place(changed(state, "models", {file["path"]: there | wrong}), plan)


Deployed = tuple[dict[str, Any], dict[str, Any], dict[str, str]]


@pytest.fixture
def deployed(jetson: dict[str, Any], catalogues: dict[str, Any]) -> Deployed:
    """A host that runs its release: its state, its plan, and the files of the release."""
    plan = deployment_plan(jetson, "orin", IMAGE, catalogues)
    files = {"docker-compose.yml": "1", ".env": "2", "engine.env": "3"}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    there = {"docker-compose.yml": "1", ".env": "2", "engine/engine.env": "3"}
    up = {"status": "running", "health": "healthy", "namespace": "net:[4026532190]"}
    state = copy.deepcopy(jetson)
    state["ports"] = dict.fromkeys(state["ports"], SOCKET)
    state["deployment"] |= {
        "files": {name: {"sha256": f"written {text}"} for name, text in there.items()},
        "secrets": {"api_keys": False, "api_keys.jsonl": True, "engine_key": True},
        "containers": {
            "engine": up | {"image": OWN_IMAGE},
            "api": up | {"image": "api:1"},
            "network": up | {"image": "api:0", "health": None},
        },
        "images": ["api:1"],
        "release": {
            "rendered": hashes,
            "written": {name: f"written {text}" for name, text in files.items()},
            "plan": plan,
        },
    }
    return state, plan, files


@pytest.mark.parametrize(
    ("address", "listens", "user", "in_place"),
    [
        ("", ["::"], SOCKET, True),
        ("", ["0.0.0.0"], SOCKET, True),
        ("", ["192.0.2.11"], SOCKET, False),
        ("192.0.2.11", ["192.0.2.11"], SOCKET, True),
        # Another program may be beside it.
        ("192.0.2.11", ["127.0.0.1", "192.0.2.11"], SOCKET, True),
        ("192.0.2.11", ["::"], SOCKET, False),
        # Of the container of an earlier version, until the next boot.
        ("192.0.2.11", ["0.0.0.0"], LISTENER | {"container": DOOR}, True),
        # The socket unit was stopped by hand.
        ("", ["0.0.0.0"], LISTENER | {"container": "edge-llm-api-a"}, False),
    ],
)
def test_a_change_that_failed_leaves_no_other_address(
    deployed: Deployed, address: str, listens: list[str], user: dict[str, Any], in_place: bool
) -> None:
    state, plan, files = deployed
    plan["api"]["listen_address"] = address
    state["ports"]["8000"] = {**user, "addresses": listens}
    assert release_in_place(state, plan, "api:1", files) is in_place


def test_stack_in_place(deployed: Deployed, changed: Change) -> None:
    state, plan, files = deployed
    assert stack_in_place(state, plan, "api:1", files)
    assert not stack_in_place(state, plan, "api:2", files)
    assert not stack_in_place(state, plan, "api:1", files | {".env": "3"})
    relocked = copy.deepcopy(plan)
    relocked["model"]["digest"] = "0" * 64
    assert not stack_in_place(state, relocked, "api:1", files)
    rotated = changed(state, "deployment.secrets", {"api_keys.jsonl": False, "engine_key": True})
    assert not stack_in_place(rotated, plan, "api:1", files)
    assert release_in_place(rotated, plan, "api:1", files)
    # Keys in plain text count where an earlier release needs them.
    earlier = changed(state, "deployment.plain_keys", True)
    assert not stack_in_place(earlier, plan, "api:1", files)
    earlier["deployment"]["secrets"]["api_keys"] = True
    assert stack_in_place(earlier, plan, "api:1", files)
    # The program and its units, which a release brings, too.
    drifted = changed(
        state,
        "deployment.installed",
        {"edge_host-2.pyz": "missing", "edge-llm.service": "in place", "a.socket": "different"},
    )
    assert installation_drift(drifted) == ["edge_host-2.pyz (missing)", "a.socket (different)"]
    assert not stack_in_place(drifted, plan, "api:1", files)
    assert release_in_place(drifted, plan, "api:1", files)
    drifted["deployment"]["installed"] = {"edge_host-2.pyz": "in place"}
    assert stack_in_place(drifted, plan, "api:1", files)
    # Facts of an earlier version do not say.
    del drifted["deployment"]["installed"]
    assert stack_in_place(drifted, plan, "api:1", files)
    other = "the release is another one, or its files were edited"
    for path, value, difference in (
        ("deployment.files", state["deployment"]["files"] | {".env": None}, other),
        ("deployment.files", state["deployment"]["files"] | {".env": {"sha256": "by hand"}}, other),
        ("deployment.containers.engine", None, "the container of the engine is missing"),
        (
            "deployment.containers.engine.status",
            "exited",
            "the container of the engine does not run: it is exited",
        ),
        (
            "deployment.containers.api.health",
            "unhealthy",
            "the container of the chat API is unhealthy",
        ),
        (
            "deployment.containers.engine.image",
            "other",
            "the container of the engine has another image",
        ),
        (
            "deployment.containers.network",
            None,
            "the container of the network namespace is missing",
        ),
        (
            "deployment.containers.network.status",
            "exited",
            "the container of the network namespace does not run: it is exited",
        ),
        (
            "deployment.containers.network.namespace",
            "net:[4026531840]",
            "edge-llm-network was restarted alone, so that the containers are in different network"
            " namespaces",
        ),
        ("ports.8000", None, "nobody listens on port 8000"),
        (
            "ports.8000",
            SOCKET | {"addresses": ["192.0.2.10"]},
            "systemd listens at 192.0.2.10, not at all addresses",
        ),
        ("ports.11434", None, "nobody listens on port 11434"),
        ("deployment.images", [], "the chat API's image is missing"),
        ("deployment.release", None, "the host has no release"),
        ("deployment.change", {"from": 1, "to": 2}, "a change was interrupted"),
    ):
        differs = changed(state, path, value)
        assert not release_in_place(differs, plan, "api:1", files), path
        assert release_differences(differs, plan, "api:1", files) == [difference]
