"""What serving a model takes of memory, and what a refusal offers instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.memory import MemoryEstimate, cpu_features, repacking

MIB = 1024**2
GIB = 1024**3
CPUS = Path(__file__).parents[1] / "edge_host/fixtures/boards/cpus.yml"


def estimate(
    catalogues: dict[str, Any], model: str, provider: str, gpu: bool = False
) -> MemoryEstimate:
    entry = catalogues["models"][model]
    size = sum(file["size"] for file in entry["gguf"]["files"])
    return MemoryEstimate(entry["shape"], size, catalogues["engines"][provider], gpu)


def test_the_origins_figure(catalogues: dict[str, Any]) -> None:
    """Llama 3.2 3B with a context of 4096 had a KV cache of 448 MiB on a Jetson Orin NX."""
    found = estimate(catalogues, "llama-3.2-3b-instruct", "llamacpp", gpu=True).parts(4096, 4)
    assert found.kv_cache == 448 * MIB
    assert found.total == sum(found.parts().values())


def test_context_means_the_same_on_both_engines(catalogues: dict[str, Any]) -> None:
    """A slot can have llm_context_size tokens on both; one engine keeps as many for each."""
    pool = estimate(catalogues, "smollm2-135m", "llamacpp").parts(4096, 4)
    slot = estimate(catalogues, "smollm2-135m", "ollama").parts(4096, 4)
    assert pool.kv_cache == 90 * MIB
    assert slot.kv_cache == 4 * pool.kv_cache


@pytest.mark.parametrize(
    ("change", "part", "factor"),
    [
        ({"cache_type": "q8_0"}, "kv_cache", 17 / 32),
        ({"cache_type": "q4_0"}, "kv_cache", 9 / 32),
        ({"context_size": 8192}, "kv_cache", 2),
        ({"parallel": 8}, "kv_cache", 1),
        ({"ubatch": 256}, "compute", 1 / 2),
    ],
)
def test_what_each_setting_changes(
    catalogues: dict[str, Any], change: dict[str, Any], part: str, factor: float
) -> None:
    model = estimate(catalogues, "smollm2-135m", "llamacpp")
    plain = model.parts(4096, 4)
    changed = model.parts(**({"context_size": 4096, "parallel": 4} | change))
    assert getattr(changed, part) == pytest.approx(getattr(plain, part) * factor)


@pytest.mark.parametrize(
    ("context", "parallel", "ubatch"),
    [(512, 1, 512), (1024, 4, 512), (1025, 4, 1024), (8192, 4, 1024), (8193, 4, 2048)],
)
def test_ollama_chooses_its_micro_batch_by_the_tokens_of_all_slots(
    catalogues: dict[str, Any], context: int, parallel: int, ubatch: int
) -> None:
    ollama = estimate(catalogues, "smollm2-135m", "ollama").parts(context, parallel)
    llamacpp = estimate(catalogues, "smollm2-135m", "llamacpp")
    assert ollama.compute == llamacpp.parts(context, parallel, ubatch=ubatch).compute


def test_without_flash_attention_scores_are_kept(catalogues: dict[str, Any]) -> None:
    model = estimate(catalogues, "smollm2-135m", "llamacpp")
    plain, without = (model.parts(8192, 1, "f16", 512, how) for how in ("auto", "off"))
    # A score of 4 bytes for each of 9 heads, 512 new tokens and 8192 old ones.
    assert without.compute - plain.compute > 9 * 512 * 8192 * 4


@pytest.mark.parametrize(
    ("memory", "given", "offers"),
    [
        # Weights of 1,926 MiB and a cache of 3,584 MiB: all three changes help.
        (
            6 * GIB,
            {"llm_context_size": 32768},
            [
                "llm_context_size: 27904",
                "llm_cache_type: q8_0",
                "llm_model: llama-3.2-1b-instruct",
            ],
        ),
        # The weights alone are too many.
        (2 * GIB, {}, ["llm_model: llama-3.2-1b-instruct"]),
        # A quantized cache is there already.
        (
            4 * GIB,
            {"llm_context_size": 65536, "llm_cache_type": "q8_0"},
            ["llm_context_size: 17664", "llm_model: llama-3.2-1b-instruct"],
        ),
    ],
)
def test_changes_that_would_fit(
    jetson: dict[str, Any],
    catalogues: dict[str, Any],
    memory: int,
    given: dict[str, Any],
    offers: list[str],
) -> None:
    jetson["board"]["memory_total"] = memory
    (problem,) = deployment_plan(jetson, "orin", given, catalogues)["problems"]
    told = problem.partition(" One of these would fit: ")[2].rstrip(".").split("; ")
    assert told == offers
    # Each of them does what it says.
    for offer in told:
        name, _, value = offer.partition(": ")
        changed = given | {name: int(value) if value.isdigit() else value}
        assert deployment_plan(jetson, "orin", changed, catalogues)["problems"] == []


def test_nothing_fits_a_board_that_is_too_small(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    jetson["board"]["memory_total"] = GIB // 2
    (problem,) = deployment_plan(jetson, "orin", {}, catalogues)["problems"]
    assert problem.endswith(" No model of models.yml would fit with these settings.")


def gpu_host(jetson: dict[str, Any], memory: int) -> dict[str, Any]:
    """An x86 host with 32 GiB and a GPU with memory of its own."""
    jetson["board"] |= {
        "kind": "generic",
        "arch": "x86_64",
        "l4t": None,
        "memory_total": 32 * GIB,
        "gpus": [{"name": "NVIDIA T400", "memory_total": memory}],
    }
    return jetson


def test_a_gpu_with_memory_of_its_own_must_have_room(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = {"llm_provider": "llamacpp", "llm_gpu_layers": 29}
    assert deployment_plan(gpu_host(jetson, 4 * GIB), "pc", given, catalogues)["problems"] == []
    small = gpu_host(jetson, 2 * GIB)
    (problem,) = deployment_plan(small, "pc", given, catalogues)["problems"]
    assert "29 layers of llama-3.2-3b-instruct need 2," in problem
    assert "of the GPU's memory, and it has 2,048 MiB. Use at most 20." in problem
    assert (
        deployment_plan(small, "pc", given | {"llm_gpu_layers": 20}, catalogues)["problems"] == []
    )


def test_a_container_leaves_the_host_room(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """And a kernel that tells of a little less after an update does not change a release."""
    jetson["board"]["memory_total"] = 8 * GIB - 300 * MIB
    first = deployment_plan(jetson, "orin", {}, catalogues)["engine"]["memory_limit"]
    assert 256 * MIB < jetson["board"]["memory_total"] - first < GIB
    jetson["board"]["memory_total"] -= 60 * 1024
    assert deployment_plan(jetson, "orin", {}, catalogues)["engine"]["memory_limit"] == first


# What of Llama 3.2 3B is there twice where its Q6_K table is repacked: 128,256 rows of 3,072.
TABLE = 128256 * 3072 // 256 * 210
NOT_REQUIRED = {"llm_gpu_required": False}


@pytest.mark.parametrize(
    ("features", "given", "more"),
    [
        ([], {}, 0),
        (["asimddp"], {}, TABLE),
        (["asimddp", "i8mm", "sve"], {"llm_provider": "llamacpp"}, TABLE),
        # A GPU takes the weights as they are in the file.
        (["asimddp"], {"llm_provider": "llamacpp", "llm_gpu_layers": 99}, 0),
        (["asimddp"], {"llm_gpu_layers": 12, "llm_provider": "llamacpp"}, 0),
        # The CPU serves where the GPU cannot, and nobody minds.
        (["asimddp"], {"llm_provider": "llamacpp", "llm_gpu_layers": 99, **NOT_REQUIRED}, TABLE),
    ],
)
def test_what_a_cpu_repacks_is_counted(
    jetson: dict[str, Any],
    catalogues: dict[str, Any],
    features: list[str],
    given: dict[str, Any],
    more: int,
) -> None:
    jetson["board"] |= {"cpu_features": features, "memory_total": 16 * GIB}
    given = {"llm_gpu_layers": 0, "llm_provider": "ollama"} | given
    memory = deployment_plan(jetson, "orin", given, catalogues)["memory"]
    assert memory["repacking"] == more
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")


def test_engines_of_before_repacking_do_not_repack(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """Those for L4T 35, and 36 before .4, are of 2024; vLLM keeps its weights as they are."""
    jetson["board"] |= {"cpu_features": ["asimddp"], "memory_total": 32 * GIB}
    given = {"llm_gpu_layers": 0}
    newer = deployment_plan(jetson, "orin", given, catalogues)["memory"]
    assert newer["repacking"] == TABLE
    for text in ("35.4.1", "36.3.0"):
        major, minor, patch = map(int, text.split("."))
        jetson["board"]["l4t"] = {"major": major, "minor": minor, "patch": patch, "text": text}
        older = deployment_plan(jetson, "orin", given, catalogues)["memory"]
        assert older["repacking"] == 0
    entry, engine = catalogues["models"]["smollm2-135m"], catalogues["engines"]["vllm"]
    assert repacking(entry, engine, ["asimddp"]) == 0


def test_repacking_is_told_where_there_is_some(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    pi["board"] |= {"memory_total": 4 * GIB, "cpu_features": ["asimddp"]}
    given = {"llm_model": "llama-3.2-3b-instruct"}
    (problem,) = deployment_plan(pi, "pi", given, catalogues)["problems"]
    assert "(weights 1,926 MiB, repacking 308 MiB, KV cache 1,792 MiB, " in problem
    pi["board"]["cpu_features"] = []
    (problem,) = deployment_plan(pi, "pi", given, catalogues)["problems"]
    assert "(weights 1,926 MiB, KV cache 1,792 MiB, " in problem


def test_a_projector_is_no_part_of_what_is_repacked(catalogues: dict[str, Any]) -> None:
    entry, engine = (
        catalogues["models"]["smolvlm2-2.2b-instruct"],
        catalogues["engines"]["llamacpp"],
    )
    assert repacking(entry, engine, ["asimddp"]) == 0


@pytest.mark.parametrize(
    "reading",
    [each for each in yaml.safe_load(CPUS.read_text()) if "family" in each],
    ids=lambda each: each["board"],
)
def test_facts_without_features_get_their_boards(
    catalogues: dict[str, Any], reading: dict[str, Any]
) -> None:
    board = {"name": reading["family"], "arch": "aarch64"}
    assert cpu_features(board, catalogues["cpus"]) == reading["means"]
    # What was read counts, whatever the board is called.
    assert cpu_features(board | {"cpu_features": ["i8mm"]}, catalogues["cpus"]) == ["i8mm"]
    assert cpu_features(board | {"cpu_features": []}, catalogues["cpus"]) == []
    assert cpu_features(board | {"cpu_features": None}, catalogues["cpus"]) == reading["means"]


@pytest.mark.parametrize(
    ("board", "feature", "has"),
    [
        ({"name": None, "arch": "aarch64"}, "asimddp", True),
        ({"name": "Raspberry Pi 6", "arch": "aarch64"}, "asimddp", True),
        ({"name": "Jetson AGX Thor", "arch": "aarch64"}, "i8mm", True),
        ({"name": None, "arch": "x86_64"}, "avx2", True),
        ({"name": None, "arch": "x86_64"}, "amx_tile", False),
        ({"arch": "riscv64"}, "asimddp", False),
    ],
)
def test_facts_of_a_board_that_nobody_knows(
    catalogues: dict[str, Any], board: dict[str, Any], feature: str, has: bool
) -> None:
    assert (feature in cpu_features(board, catalogues["cpus"])) is has
