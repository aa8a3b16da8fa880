"""How much memory weights take on a CPU: held to what llama-server measured, and to real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_fleet.plan.memory import MemoryEstimate
from edge_fleet.plan.repacking import (
    AMX,
    AVX2,
    AVX512,
    DOTPROD,
    Tensor,
    in_memory,
    repacked_size,
    tensors,
)
from edge_host.constants import CPU_FEATURES

MIB = 1024**2
ROOT = Path(__file__).parents[3]
MODELS: dict[str, Any] = yaml.safe_load((ROOT / "models.yml").read_text())["models"]
ENGINES: dict[str, Any] = yaml.safe_load((ROOT / "engines.yml").read_text())["engines"]
SHAPE: dict[str, int] = MODELS["smollm2-135m"]["shape"]
FIXTURE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "fixtures/weights-in-memory.yml").read_text()
)
MEASURED: list[dict[str, Any]] = FIXTURE["measured"]
PROCESSES = [row for row in MEASURED if "peak" in row]
# What llama-server's libraries take: the rest where all weights are mapped.
LIBRARIES = 17.0


def ids(row: dict[str, Any]) -> str:
    return f"{row['cpu']}-{row['quantization']}"


@pytest.mark.parametrize("row", MEASURED, ids=ids)
def test_buffers_are_as_measured(row: dict[str, Any]) -> None:
    features = FIXTURE["classes"][row["cpu"]]
    found = in_memory(SHAPE, row["quantization"], row["size"], features)
    mapped = row["buffers"]["CPU_Mapped"]
    repacked = sum(row["buffers"].values()) - mapped
    print(
        f"{ids(row)}: mapped {found.mapped / MIB:.1f} MiB, measured {mapped:.1f};"
        f" repacked {found.repacked / MIB:.1f}, measured {repacked:.1f}"
    )
    # A file's header is mapped, too, and no buffer.
    assert 0 <= found.mapped / MIB - mapped < 2
    assert found.repacked / MIB == pytest.approx(repacked, abs=0.1)
    # What is asked of the estimate.
    assert sum(found) / MIB == pytest.approx(mapped + repacked, rel=0.1)


@pytest.mark.parametrize("row", PROCESSES, ids=ids)
def test_the_estimate_is_near_the_process(row: dict[str, Any]) -> None:
    """Anonymous memory, the mapped weights that each token needs, and the libraries."""
    found = in_memory(SHAPE, row["quantization"], row["size"], FIXTURE["classes"][row["cpu"]])
    repacking = sum(found) - row["size"]
    need = MemoryEstimate(SHAPE, row["size"], ENGINES["llamacpp"], repacking=repacking)
    parts = need.parts(1024, 1)
    real = row["anonymous"] + row["buffers"]["CPU_Mapped"] + LIBRARIES
    assert (parts.total - parts.system) / MIB == pytest.approx(real, rel=0.1)


def test_libraries_take_what_is_left() -> None:
    rest = [
        row["peak"] - row["anonymous"] - row["buffers"]["CPU_Mapped"]
        for row in PROCESSES
        if len(row["buffers"]) == 1
    ]
    assert rest == [pytest.approx(LIBRARIES, abs=1.0)] * 15


def test_every_class_was_measured() -> None:
    assert {row["cpu"] for row in MEASURED} == FIXTURE["classes"].keys()
    assert len(PROCESSES) == 28
    assert {row["quantization"] for row in MEASURED} >= {"Q4_K_M", "Q4_0", "Q8_0", "F16"}


def test_the_features_read_are_those_that_decide() -> None:
    # Kernels alone are chosen by the others.
    only_kernels = {"i8mm", "sve", "sve2"}
    assert (AMX | DOTPROD | only_kernels) == CPU_FEATURES


CHAT = [name for name, entry in MODELS.items() if "task" not in entry and name != "smoke"]


@pytest.mark.parametrize("name", CHAT)
def test_tensors_make_up_the_files_of_the_catalogue(name: str) -> None:
    """All but the header: one of the two ways to have an output layer, and not the other."""
    entry = MODELS[name]
    (size,) = (file["size"] for file in entry["gguf"]["files"] if "part" not in file)
    sizes = [
        sum(
            each.size
            for each in tensors(entry["shape"], entry["gguf"]["quantization"], tied)
            if each.name != "tied output"
        )
        for tied in (True, False)
    ]
    near = [found for found in sizes if 0.98 * size < found <= size]
    assert len(near) == 1, (size, sizes)


@pytest.mark.parametrize(
    ("name", "otherwise"),
    # The first one's table cannot be repacked: its rows are no multiple of 4.
    [("nomic-embed-text-v1.5", 0), ("bge-reranker-v2-m3", 250002 * 1024 // 32 * 34)],
)
def test_an_encoder_has_its_table_once(name: str, otherwise: int) -> None:
    """Both are Q8_0, which dotprod repacks: all but the table, which is no output layer."""
    entry = MODELS[name]
    (file,) = entry["gguf"]["files"]
    weights, size = entry["gguf"], file["size"]
    kept = in_memory(entry["shape"], "Q8_0", size, DOTPROD, weights["family"])
    assert sum(kept) == size
    table = entry["shape"]["vocabulary"] * entry["shape"]["embedding"] // 32 * 34
    assert 0.93 * size < table + kept.repacked < size
    # In a family with an output layer the table would be that, too.
    assert sum(in_memory(entry["shape"], "Q8_0", size, DOTPROD)) - size == otherwise


@pytest.mark.parametrize(
    ("name", "tied"),
    [("llama-3.2-3b-instruct", True), ("qwen2.5-coder-7b-instruct", False)],
)
def test_a_table_that_is_the_output_layer_is_kept_twice(name: str, tied: bool) -> None:
    """Both are Q4_K_M: without repacking the file's size, with dotprod the Q6_K table more."""
    entry = MODELS[name]
    (file,) = entry["gguf"]["files"]
    plain, packed = (
        in_memory(entry["shape"], "Q4_K_M", file["size"], features)
        for features in (frozenset[str](), DOTPROD)
    )
    table = entry["shape"]["vocabulary"] * entry["shape"]["embedding"] // 256 * 210
    assert plain == (file["size"], 0)
    assert sum(packed) - file["size"] == (table if tied else 0)
    # AVX2 repacks the Q4_K in it, and no Q6_K: nothing is there twice.
    assert sum(in_memory(entry["shape"], "Q4_K_M", file["size"], AVX2)) == file["size"]


@pytest.mark.parametrize(
    ("kind", "rows", "columns", "features", "size"),
    [
        ("Q4_0", 64, 64, AVX2, 64 * 64 // 32 * 18),
        ("Q4_0", 60, 64, AVX2, None),
        ("Q4_0", 60, 64, DOTPROD, 60 * 64 // 32 * 18),
        ("Q4_0", 64, 64, [], None),
        # One that lacks a feature is served by the backend below.
        ("Q4_0", 64, 64, AVX2 - {"fma"}, None),
        ("Q2_K", 64, 256, AVX512, 64 * 84),
        ("Q2_K", 64, 256, AVX2, None),
        ("Q2_K", 64, 256, AMX, 64 * 84),
        ("Q8_0", 64, 64, AVX512, None),
        ("Q8_0", 64, 64, AMX, 64 * 64 // 32 * 38),
        ("Q8_0", 48, 64, AMX, None),
        ("Q4_K", 64, 512, AMX, 64 * 2 * 148),
        ("Q4_K", 40, 512, AMX, 40 * 2 * 144),
        ("Q6_K", 64, 256, AMX, 64 * 210),
        ("F16", 32, 24, AMX, None),
        ("F16", 32, 16, AMX, 32 * 16 * 2),
        ("F16", 32, 16, DOTPROD, None),
        ("F32", 64, 256, AMX | DOTPROD, None),
        ("BF16", 64, 256, AMX | DOTPROD, None),
    ],
)
def test_repacked_size(kind: str, rows: int, columns: int, features: Any, size: int | None) -> None:
    assert repacked_size(Tensor("ffn_up", kind, rows, columns), features) == size


@pytest.mark.parametrize("quantization", ["IQ2_M", "MXFP4", "a new one"])
def test_what_is_not_known_is_estimated_from_above(quantization: str) -> None:
    size = 100 * MIB
    assert in_memory(SHAPE, quantization, size, []) == (size, 0)
    table = 49152 * 576 // 32 * 34
    assert in_memory(SHAPE, quantization, size, DOTPROD) == (table, size)
    assert in_memory(SHAPE, quantization, size, AMX) == (table, size * 38 // 34)


def test_a_file_of_another_size_is_estimated_from_above() -> None:
    """As a mixture of experts is: its layers have more matrices than the shape tells."""
    size = 400 * MIB
    assert sum(in_memory(SHAPE, "Q4_K_M", size, DOTPROD)) > size
    assert sum(in_memory(SHAPE, "Q4_K_M", size, [])) == size
