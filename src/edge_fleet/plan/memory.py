"""How much memory serving a model takes, and whether a host has it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edge_fleet.plan.repacking import in_memory
from edge_fleet.text import Problem, format_mib, join_names
from edge_host.constants import MIB

# What the operating system, Docker and the chat API need beside the engine.
SYSTEM_MEMORY = 768 * MIB
LIMIT_STEP = 256 * MIB
# Bytes of a number in the KV cache: quantized ones come in blocks of 32 with a scale.
CACHE_TYPES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
# What CUDA's own context takes of a GPU's memory, beside the engine's buffers.
CUDA_MEMORY = 256 * MIB
F16_BYTES, F32_BYTES = 2, 4
# A batch is what an engine takes of prompts at once, a micro-batch what it computes at once.
BATCH, UBATCH = 2048, 512


class Need:
    """What serving a model takes of memory, in bytes, by part.

    Source of the parts: what llama-server and Ollama print when they load models of several shapes
    (tests/engines/test_memory.py holds it to them), for which they reserve everything at the start.

    Args:
        shape: layers, embedding, heads, kv_heads, head_size, feed_forward, vocabulary.
        weights: their bytes.
        engine: its rules: context (pool: all slots share llm_context_size tokens; slot: each has as
            many), ubatch (its own micro-batch, where it takes none), process (bytes of the
            process itself), outputs (batch: a whole micro-batch's logits are reserved; slots: one
            row for each slot).
        gpu: whether layers go onto one.
        repacking: what the CPU's own form of the weights takes besides (`repacking`).
    """

    def __init__(
        self,
        shape: dict[str, int],
        weights: int,
        engine: dict[str, Any],
        gpu: bool = False,
        repacking: int = 0,
    ) -> None:
        self._shape = shape
        self._weights = weights
        self._engine = engine
        self._gpu = gpu
        self._repacking = repacking

    def parts(
        self,
        context_size: int,
        parallel: int,
        cache_type: str = "f16",
        ubatch: int = UBATCH,
        flash_attention: str = "auto",
    ) -> dict[str, int]:
        """Each part, and their total."""
        shape, engine = self._shape, self._engine
        ubatch = engine.get("ubatch") or ubatch
        tokens = context_size * (parallel if engine["context"] == "slot" else 1)
        heads = shape["kv_heads"] * shape["head_size"]
        rows = parallel if engine.get("outputs", "slots") == "slots" else ubatch
        parts = {
            "weights": self._weights,
            "repacking": self._repacking,
            # Key and value of each layer, head and token.
            "kv_cache": round(2 * shape["layers"] * heads * tokens * CACHE_TYPES[cache_type]),
            "compute": self._compute(context_size, ubatch, flash_attention != "off"),
            "engine": engine["process"]
            + rows * shape["vocabulary"] * F32_BYTES
            + (CUDA_MEMORY if self._gpu else 0),
            "system": SYSTEM_MEMORY,
        }
        return {**parts, "total": sum(parts.values())}

    def _compute(self, context_size: int, ubatch: int, flash_attention: bool) -> int:
        """Intermediate results of one micro-batch, and who may look at which token."""
        shape = self._shape
        row = ubatch * F32_BYTES
        feed_forward = row * (3 * shape["feed_forward"] + 5 * shape["embedding"])
        if flash_attention:
            return feed_forward + context_size * ubatch * F16_BYTES
        scores = row * context_size * (shape["heads"] + 1) + row * 4 * shape["embedding"]
        keys = context_size * shape["kv_heads"] * shape["head_size"] * F32_BYTES
        return max(feed_forward + row * context_size, scores + keys)


def cpu_features(board: dict[str, Any], cpus: dict[str, list[str]]) -> list[str]:
    """The features of a board's CPU by which an engine decides how weights are kept in memory.

    `cpus` is the table of boards.yml, for facts that do not have them.
    """
    read: list[str] | None = board.get("cpu_features")
    if read is not None:
        return read
    return cpus.get(board.get("name") or "", cpus.get(board["arch"], []))


def repacking(entry: dict[str, Any], engine: dict[str, Any], features: Collection[str]) -> int:
    """Bytes that a model's weights take beside their files' size, because the engine keeps some of
    them in another form for a CPU with these features. `entry` is that of models.yml.
    """
    if not engine.get("repacks"):
        return 0
    weights = entry[engine["weights"]]
    size = sum(each["size"] for each in weights["files"] if each.get("part") != "projector")
    kept = in_memory(entry["shape"], weights["quantization"], size, features)
    return int(kept.mapped + kept.repacked - size)


def memory_parts(need: Need, settings: dict[str, Any]) -> dict[str, int]:
    """What a model takes with a host's settings."""
    return need.parts(
        settings["llm_context_size"],
        settings["llm_parallel"],
        settings["llm_cache_type"],
        settings["llm_ubatch_size"],
        settings["llm_flash_attention"],
    )


def memory_problem(
    model: dict[str, Any], parts: dict[str, int], board: dict[str, Any], settings: dict[str, Any]
) -> Problem:
    """Why a model does not fit the host's memory."""
    told = ", ".join(
        f"{name.replace('_', ' ').replace('kv', 'KV')} {format_mib(size)}"
        for name, size in parts.items()
        if name != "total" and size
    )
    return (
        f"{model['name']} with llm_context_size {settings['llm_context_size']} and llm_parallel"
        f" {settings['llm_parallel']} needs {format_mib(parts['total'])} ({told}), and the host has"
        f" {format_mib(board['memory_total'])} of memory"
    )


def gpu_problems(
    model: dict[str, Any],
    parts: dict[str, int],
    board: dict[str, Any],
    layers: int,
    provider: str,
) -> list[Problem]:
    """Why a GPU with memory of its own has no room for the layers that are asked onto it."""
    if not layers or not board["gpus"]:
        return []
    share = min(1.0, layers / (model["shape"]["layers"] + 1))
    need = round(share * (parts["weights"] + parts["kv_cache"]) + parts["compute"]) + CUDA_MEMORY
    has = max(gpu["memory_total"] for gpu in board["gpus"])
    if need <= has:
        return []
    fitting = int(
        (has - parts["compute"] - CUDA_MEMORY)
        / (parts["weights"] + parts["kv_cache"])
        * (model["shape"]["layers"] + 1)
    )
    # Only llama.cpp puts a part of a model's layers there; vLLM has an image for the GPU alone.
    instead = {
        "llamacpp": f"accepted are up to {max(0, fitting)}.",
        "ollama": "accepted is 0, or choose a smaller llm_context_size or llm_model.",
    }.get(provider, "choose a smaller llm_context_size or llm_model.")
    return [
        f"llm_gpu_layers asks {layers} layers of {model['name']} onto the GPU, which takes"
        f" {format_mib(need)} of its memory, and it has {format_mib(has)}; {instead}"
    ]


def context_problems(model: dict[str, Any], context_size: int) -> list[Problem]:
    trained = model["shape"]["context_trained"]
    if context_size <= trained:
        return []
    return [
        f"llm_context_size is {context_size}, and {model['name']} was trained for {trained} tokens;"
        f" accepted is up to {trained}."
    ]


def cache_type_problems(
    settings: dict[str, Any], provider: str, engine: dict[str, Any]
) -> list[Problem]:
    asked = settings["llm_cache_type"]
    if asked not in engine["cache_types"]:
        return [
            f"llm_cache_type is {asked!r}, and {provider} with its image for this board has it not;"
            f" accepted are: {join_names(engine['cache_types'])}."
        ]
    if asked != "f16" and settings["llm_flash_attention"] == "off":
        return [
            f"llm_cache_type is {asked!r}, which takes flash attention, and llm_flash_attention is"
            " off; accepted is auto or on."
        ]
    return []
