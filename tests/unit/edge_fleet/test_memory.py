"""What serving a model takes of memory, and what a refusal offers instead."""

from __future__ import annotations

from typing import Any

import pytest

from filter_plugins.plan import Need, deployment_plan

MIB = 1024**2
GIB = 1024**3


def need(catalogues: dict[str, Any], model: str, provider: str, gpu: bool = False) -> Need:
    entry = catalogues["models"][model]
    size = sum(file["size"] for file in entry["gguf"]["files"])
    return Need(entry["shape"], size, catalogues["engines"][provider], gpu)


def test_the_origins_figure(catalogues: dict[str, Any]) -> None:
    """Llama 3.2 3B with a context of 4096 had a KV cache of 448 MiB on a Jetson Orin NX."""
    found = need(catalogues, "llama-3.2-3b-instruct", "llamacpp", gpu=True).parts(4096, 4)
    assert found["kv_cache"] == 448 * MIB
    assert found["total"] == sum(size for name, size in found.items() if name != "total")


def test_context_means_the_same_on_both_engines(catalogues: dict[str, Any]) -> None:
    """A slot can have llm_context_size tokens on both; one engine keeps as many for each."""
    pool = need(catalogues, "smollm2-135m", "llamacpp").parts(4096, 4)
    slot = need(catalogues, "smollm2-135m", "ollama").parts(4096, 4)
    assert pool["kv_cache"] == 90 * MIB
    assert slot["kv_cache"] == 4 * pool["kv_cache"]


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
    model = need(catalogues, "smollm2-135m", "llamacpp")
    plain = model.parts(4096, 4)
    changed = model.parts(**({"context_size": 4096, "parallel": 4} | change))
    assert changed[part] == pytest.approx(plain[part] * factor)


def test_without_flash_attention_scores_are_kept(catalogues: dict[str, Any]) -> None:
    model = need(catalogues, "smollm2-135m", "llamacpp")
    plain, without = (model.parts(8192, 1, "f16", 512, how) for how in ("auto", "off"))
    # A score of 4 bytes for each of 9 heads, 512 new tokens and 8192 old ones.
    assert without["compute"] - plain["compute"] > 9 * 512 * 8192 * 4


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
            ["llm_context_size: 17408", "llm_model: llama-3.2-1b-instruct"],
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
    told = problem.partition("one of these would fit: ")[2].rstrip(".").split("; ")
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
    assert problem.endswith("; no model of models.yml would fit with these settings.")


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
    assert "asks 29 layers of llama-3.2-3b-instruct onto the GPU, which takes 2," in problem
    assert "and it has 2,048 MiB; accepted are up to 20." in problem
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
