"""What the board decides where the inventory says nothing: docs/boards.md has the reasons."""

from __future__ import annotations

from typing import Any

import pytest

from edge_fleet.plan.board import default_threads
from edge_fleet.plan.build import deployment_plan

GIB = 1024**3


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 2), (4, 4), (6, 4), (8, 6), (12, 10)])
def test_threads(cpus: int, threads: int) -> None:
    assert default_threads(cpus) == threads


@pytest.mark.parametrize(
    ("memory", "batch", "ubatch"),
    [(2 * GIB, 512, 128), (4 * GIB, 2048, 512), (64 * GIB, 2048, 512)],
)
def test_batches(
    pi: dict[str, Any], catalogues: dict[str, Any], memory: int, batch: int, ubatch: int
) -> None:
    pi["board"]["memory_total"] = memory
    plan = deployment_plan(pi, "pi", {"llm_model": "smollm2-135m"}, catalogues)
    assert (plan["environment"]["BATCH"], plan["environment"]["UBATCH"]) == (batch, ubatch)


@pytest.mark.parametrize(
    ("provider", "given", "flash_attention"),
    [
        ("llamacpp", {}, "auto"),
        ("llamacpp", {"llm_flash_attention": False}, "off"),
        ("llamacpp", {"llm_flash_attention": "on"}, "on"),
        # What is quantized can be read by flash attention alone.
        ("llamacpp", {"llm_cache_type": "q8_0"}, "on"),
        ("ollama", {}, ""),
        ("ollama", {"llm_flash_attention": "off"}, "0"),
        ("ollama", {"llm_cache_type": "q8_0"}, "1"),
    ],
)
def test_flash_attention(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    provider: str,
    given: dict[str, Any],
    flash_attention: str,
) -> None:
    given = {"llm_provider": provider, "llm_model": "smollm2-135m"} | given
    plan = deployment_plan(pi, "pi", given, catalogues)
    assert plan["environment"]["FLASH_ATTENTION"] == flash_attention
    assert plan["environment"]["CACHE_TYPE"] == given.get("llm_cache_type", "f16")


def test_each_default_can_be_overridden(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    given = {
        "llm_threads": 3,
        "llm_batch_size": 1024,
        "llm_ubatch_size": 256,
        "llm_cache_type": "q4_0",
        "llm_flash_attention": "on",
        "llm_gpu_layers": 12,
        "llm_gpu_required": False,
    }
    plan = deployment_plan(jetson, "orin", given, catalogues)
    found = plan["environment"]
    assert [found[name] for name in ("THREADS", "BATCH", "UBATCH", "CACHE_TYPE")] == [
        *(3, 1024, 256, "q4_0")
    ]
    assert plan["gpu"]["layers"] == 12
    assert plan["gpu"]["required"] is False
