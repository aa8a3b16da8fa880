"""What the memory error suggests: whoever follows it gets a plan, and no other error."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_fleet.catalogue import read
from edge_fleet.plan.build import deployment_plan
from tests.unit.edge_fleet.conftest import JETSON

ROOT = Path(__file__).parents[3]
MIB = 1024**2
GIB = 1024**3
BOARDS = Path(__file__).parents[1] / "edge_host/fixtures/boards/hosts.yml"
OFFER = " One of these would fit: "
NONE = " No model of models.yml would fit with these settings."
SYSTEMS = {"jetson": ("ubuntu", "22.04"), "pi": ("debian", "13"), "generic": ("debian", "13")}


@pytest.fixture(scope="module")
def catalogues() -> dict[str, Any]:
    """As the filter reads them: validated once, and not with each of thousands of plans."""
    return read(str(ROOT))


def boards() -> list[dict[str, Any]]:
    """One of each kind, L4T and CPU of the readings, each L4T with own images, and a card."""
    cpus = yaml.safe_load((ROOT / "boards.yml").read_text())["cpus"]
    rows = [
        {"kind": "jetson", "name": "Jetson Orin NX", "l4t": l4t, "arch": "aarch64"}
        for l4t in ("35.4.1", "36.0.0", "36.2.0", "36.3.0", "36.4.3", "38.2.0", "39.2.0")
    ]
    for host in yaml.safe_load(BOARDS.read_text()):
        board = host["board"]
        kind = board.get("kind", "generic")
        arch = "x86_64" if kind == "generic" else "aarch64"
        rows.append(
            {"kind": kind, "name": board.get("name"), "l4t": board.get("l4t"), "arch": arch}
        )
    found = {(row["kind"], row["l4t"], str(cpus.get(row["name"]))): row for row in rows}
    card = [{"name": "NVIDIA T400", "memory_total": 4 * GIB}]
    return [
        *found.values(),
        {"kind": "generic", "name": None, "l4t": None, "arch": "x86_64", "gpus": card},
    ]


def state_of(board: dict[str, Any], memory: int) -> dict[str, Any]:
    """A host that has nothing against it but, perhaps, its memory."""
    state = copy.deepcopy(JETSON)
    del state["board"]["cpu_features"]  # those of the board's family
    system, version = SYSTEMS[board["kind"]]
    l4t = None
    if board["l4t"]:
        major, minor, patch = map(int, board["l4t"].split("."))
        l4t = {"major": major, "minor": minor, "patch": patch, "text": board["l4t"]}
    state["board"] |= board | {
        "l4t": l4t,
        "memory_total": memory,
        "os": {"id": system, "version_id": version, "pretty_name": None},
    }
    return state


def suggestions(problems: list[str]) -> list[dict[str, Any]]:
    """The changes that the memory error among them offers."""
    found = []
    for problem in problems:
        for offer in problem.partition(OFFER)[2].rstrip(".").split("; "):
            name, colon, value = offer.partition(": ")
            if colon:
                found.append({name: int(value) if value.isdigit() else value})
    return found


SETTINGS: list[dict[str, Any]] = [
    {"llm_context_size": size} | cache | attention | layers
    for size, cache, attention, layers in itertools.product(
        (4096, 16384, 131072),
        ({}, {"llm_cache_type": "q8_0"}),
        ({}, {"llm_flash_attention": "off"}),
        ({"llm_gpu_layers": 0}, {"llm_gpu_layers": 99}),
    )
]


@pytest.mark.parametrize("provider", ["llamacpp", "ollama", "vllm"])
@pytest.mark.parametrize(
    "board",
    boards(),
    ids=lambda each: (
        "-".join(value for value in each.values() if isinstance(value, str))
        + ("-card" if "gpus" in each else "")
    ),
)
def test_following_a_suggestion_never_gives_another_error(
    catalogues: dict[str, Any], board: dict[str, Any], provider: str
) -> None:
    models = ["llama-3.2-3b-instruct", "qwen2.5-coder-7b-instruct"]
    sizes = [1 * GIB, 4 * GIB, 8 * GIB]
    if provider == "vllm":  # the catalogue has one real model for it
        models, sizes = ["smollm2-135m"], [2900 * MIB, 3000 * MIB, 3100 * MIB]
    for memory, model, settings in itertools.product(sizes, models, SETTINGS):
        state = state_of(board, memory - 100 * MIB)
        given = {"llm_provider": provider, "llm_model": model} | settings
        before = deployment_plan(state, "board", given, catalogues)["problems"]
        for change in suggestions(before):
            after = deployment_plan(state, "board", given | change, catalogues)["problems"]
            # What else was wrong is wrong still, and nothing is new.
            assert set(after) < set(before), (given, change, after)


@pytest.mark.parametrize(
    ("l4t", "memory", "settings"),
    [
        ("35.4.1", 8 * GIB, {}),
        ("36.0.0", 8 * GIB, {}),
        ("36.3.0", 8 * GIB, {}),
        ("36.4.3", 5 * GIB, {"llm_flash_attention": "off"}),
        ("36.4.3", 8 * GIB, {"llm_flash_attention": False, "llm_provider": "ollama"}),
        (
            "36.4.3",
            2984 * MIB,
            {"llm_provider": "vllm", "llm_model": "smollm2-135m", "llm_context_size": 8192},
        ),
    ],
)
def test_a_quantized_cache_is_suggested_where_it_can_be_used_alone(
    catalogues: dict[str, Any], l4t: str, memory: int, settings: dict[str, Any]
) -> None:
    board = {"kind": "jetson", "name": "Jetson Orin NX", "l4t": l4t, "arch": "aarch64"}
    given = {"llm_context_size": 16384} | settings
    (problem,) = deployment_plan(state_of(board, memory), "orin", given, catalogues)["problems"]
    assert " does not fit: " in problem
    assert OFFER in problem
    assert "q8_0" not in problem


def test_a_quantized_cache_is_suggested_where_it_helps(catalogues: dict[str, Any]) -> None:
    board = {"kind": "jetson", "name": "Jetson Orin NX", "l4t": "36.4.3", "arch": "aarch64"}
    given = {"llm_context_size": 16384, "llm_provider": "ollama"}
    (problem,) = deployment_plan(state_of(board, 8 * GIB), "orin", given, catalogues)["problems"]
    assert "; llm_cache_type: q8_0; " in problem


def test_a_model_that_cannot_have_the_context_is_not_suggested(catalogues: dict[str, Any]) -> None:
    """smollm2-135m would fit, and was trained for 8192 tokens."""
    board = {"kind": "pi", "name": "Raspberry Pi 4", "l4t": None, "arch": "aarch64"}
    given = {"llm_context_size": 16384, "llm_model": "llama-3.2-3b-instruct"}
    state = state_of(board, 2 * GIB)
    (problem,) = deployment_plan(state, "pi", given, catalogues)["problems"]
    assert problem.endswith(NONE)


def test_a_model_that_does_not_fit_the_disk_is_not_suggested(catalogues: dict[str, Any]) -> None:
    board = {"kind": "pi", "name": "Raspberry Pi 5", "l4t": None, "arch": "aarch64"}
    state = state_of(board, 5 * GIB)
    file = catalogues["models"]["qwen2.5-coder-7b-instruct"]["gguf"]["files"][0]
    state["models"][file["file"]] = {
        "size": file["size"],
        "mtime_ns": 0,
        "recorded_sha256": file["sha256"],
        "bundle": None,
    }
    given = {"llm_model": "qwen2.5-coder-7b-instruct"}
    (problem,) = deployment_plan(state, "pi", given, catalogues)["problems"]
    assert "llm_model: llama-3.2-3b-instruct" in problem
    state["board"]["disk"]["free"] = 1500 * MIB
    (problem,) = deployment_plan(state, "pi", given, catalogues)["problems"]
    assert problem.endswith(f"{OFFER}llm_model: llama-3.2-1b-instruct.")
    state["board"]["disk"]["free"] = 0
    (problem,) = deployment_plan(state, "pi", given, catalogues)["problems"]
    assert problem.endswith(NONE)


def test_a_card_is_given_what_each_engine_can_do(catalogues: dict[str, Any]) -> None:
    """Ollama knows all layers or none, so none is what would do."""
    card = [{"name": "NVIDIA T400", "memory_total": 2 * GIB}]
    board = {"kind": "generic", "name": None, "l4t": None, "arch": "x86_64", "gpus": card}
    given = {"llm_gpu_layers": 99, "llm_provider": "ollama"}
    state = state_of(board, 16 * GIB)
    (problem,) = deployment_plan(state, "pc", given, catalogues)["problems"]
    assert "Use 0, or a smaller llm_context_size or llm_model." in problem
    given["llm_gpu_layers"] = 0
    assert deployment_plan(state, "pc", given, catalogues)["problems"] == []
