"""How much memory serving a model takes, and whether a host has it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edge_fleet.plan.chat_api import DEFAULT, ChatApi
from edge_fleet.plan.encoders import ENCODERS, UNGATED
from edge_fleet.plan.repacking import in_memory
from edge_fleet.plan.types import EngineOptions, MemoryParts, Model
from edge_fleet.text import Problem, join_choices
from edge_host.constants import MIB
from edge_host.sizes import format_mib

# What the operating system and Docker need beside the engine, the chat API and the socket holder.
HOST_MEMORY = 480 * MIB
LIMIT_STEP = 256 * MIB
# Bytes of a number in the KV cache: quantized ones come in blocks of 32 with a scale.
CACHE_TYPES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
# What CUDA's own context takes of a GPU's memory, beside the engine's buffers.
CUDA_MEMORY = 256 * MIB
# What an engine keeps of each token of its vocabulary: the text, and its places in tables.
VOCABULARY_ENTRY = 100
F16_BYTES, F32_BYTES = 2, 4
# A batch is what an engine takes of prompts at once, a micro-batch what it computes at once.
BATCH, UBATCH = 2048, 512


class MemoryEstimate:
    """How much memory serving a model needs.

    Source of the parts: what llama-server and Ollama print when they load models of several shapes,
    for which they reserve everything at the start (tests/integration/engines/test_memory.py).

    Args:
        shape: layers, embedding, heads, kv_heads, head_size, feed_forward, vocabulary.
        weights: their bytes.
        engine: its rules: context (pool: all slots share llm_context_size tokens; slot: each has as
            many), ubatch (where it chooses the micro-batch itself: rows of tokens, a number of all
            slots, and size, the micro-batch from that number on), process (bytes of the process
            itself), outputs (batch: a whole micro-batch's logits are reserved; slots: one row for
            each slot).
        gpu: whether layers go onto one.
        repacking: bytes of the CPU's own form of the weights, in addition (`repacking`).
        chat_api: what serves beside the engine; its limits of memory count as used.
        family: of the model.
        whole: whether the engine computes a whole input at once, whatever its micro-batch.
    """

    def __init__(
        self,
        shape: dict[str, int],
        weights: int,
        engine: dict[str, Any],
        gpu: bool = False,
        repacking: int = 0,
        chat_api: ChatApi = DEFAULT,
        *,
        family: str = "",
        whole: bool = False,
    ) -> None:
        self._shape = shape
        self._weights = weights
        self._engine = engine
        self._gpu = gpu
        self._repacking = repacking
        self._chat_api = chat_api
        self._family = family
        self._whole = whole

    def parts(
        self,
        context_size: int,
        parallel: int,
        cache_type: str = "f16",
        ubatch: int = UBATCH,
        flash_attention: str = "auto",
    ) -> MemoryParts:
        """The bytes of each part."""
        shape, engine = self._shape, self._engine
        tokens = context_size * (parallel if engine["context"] == "slot" else 1)
        if self._whole:
            ubatch = context_size
        else:
            chosen = (row["size"] for row in engine.get("ubatch") or () if tokens >= row["tokens"])
            ubatch = max(chosen, default=ubatch)
        layers = 0 if self._family in ENCODERS else shape["layers"]
        heads = shape["kv_heads"] * shape["head_size"]
        rows = parallel if engine.get("outputs", "slots") == "slots" else ubatch
        return MemoryParts(
            weights=self._weights,
            repacking=self._repacking,
            # Key and value of each layer, head and token.
            kv_cache=round(2 * layers * heads * tokens * CACHE_TYPES[cache_type]),
            compute=self._compute(context_size, ubatch, flash_attention != "off"),
            engine=engine["process"]
            + shape["vocabulary"] * (VOCABULARY_ENTRY + rows * F32_BYTES)
            + (CUDA_MEMORY if self._gpu else 0),
            system=HOST_MEMORY + self._chat_api.memory,
        )

    def of(self, options: EngineOptions) -> MemoryParts:
        """The bytes of each part with a host's options."""
        return self.parts(
            options.context_size,
            options.parallel,
            options.cache_type,
            options.ubatch_size,
            options.flash_attention,
        )

    def _compute(self, context_size: int, ubatch: int, flash_attention: bool) -> int:
        """Intermediate results of one micro-batch, and who may look at which token."""
        shape = self._shape
        row = ubatch * F32_BYTES
        widths = 3 * shape["feed_forward"] + 5 * shape["embedding"]
        if self._family in UNGATED:
            widths = 2 * (shape["feed_forward"] + shape["embedding"])
        feed_forward = row * widths
        if flash_attention:
            return feed_forward + context_size * ubatch * F16_BYTES
        scores = row * context_size * (shape["heads"] + 1) + row * 4 * shape["embedding"]
        keys = context_size * shape["kv_heads"] * shape["head_size"] * F32_BYTES
        if self._family in ENCODERS:
            # Keys and values are of the same micro-batch.
            keys = row * 3 * shape["embedding"]
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
    family, quantization = weights["family"], weights["quantization"]
    kept = in_memory(entry["shape"], quantization, size, features, family)
    return int(kept.mapped + kept.repacked - size)


def memory_problem(
    model: Model, parts: MemoryParts, board: dict[str, Any], options: EngineOptions
) -> Problem:
    """Why a model does not fit the host's memory."""
    shown = ", ".join(
        f"{name.replace('_', ' ').replace('kv', 'KV')} {format_mib(size)}"
        for name, size in parts.parts().items()
        if size
    )
    return (
        f"{model.name} does not fit: with llm_context_size {options.context_size} and llm_parallel"
        f" {options.parallel} it needs {format_mib(parts.total)} of memory ({shown}), and the host"
        f" has {format_mib(board['memory_total'])}."
    )


def gpu_problems(
    model: Model, parts: MemoryParts, board: dict[str, Any], options: EngineOptions
) -> list[Problem]:
    """Why a GPU with memory of its own has no room for the requested layers."""
    layers = options.gpu_layers
    if not layers or not board["gpus"]:
        return []
    all_layers = model.shape["layers"] + 1
    needed = round(min(1.0, layers / all_layers) * (parts.weights + parts.kv_cache))
    needed += parts.compute + CUDA_MEMORY
    found = max(gpu["memory_total"] for gpu in board["gpus"])
    if needed <= found:
        return []
    fitting = int(
        (found - parts.compute - CUDA_MEMORY) / (parts.weights + parts.kv_cache) * all_layers
    )
    # Only llama.cpp puts a part of a model's layers there; vLLM has an image for the GPU alone.
    advice = {
        "llamacpp": f"Use at most {max(0, fitting)}.",
        "ollama": "Use 0, or a smaller llm_context_size or llm_model.",
    }.get(options.provider, "Use a smaller llm_context_size or llm_model.")
    return [
        f"llm_gpu_layers does not fit: {layers} layers of {model.name} need {format_mib(needed)} of"
        f" the GPU's memory, and it has {format_mib(found)}. {advice}"
    ]


def context_problems(model: Model, context_size: int) -> list[Problem]:
    """Why a model cannot have a context of this size."""
    trained = model.shape["context_trained"]
    if context_size <= trained:
        return []
    return [
        f"llm_context_size does not fit: {context_size}, and {model.name} was trained for {trained}"
        f" tokens. Use at most {trained}."
    ]


def cache_type_problems(options: EngineOptions, engine: dict[str, Any]) -> list[Problem]:
    """Why the engine cannot have a KV cache of this type."""
    if options.cache_type not in engine["cache_types"]:
        return [
            f"llm_cache_type does not fit: {options.provider} with its image for this board does"
            f" not support {options.cache_type}. Use {join_choices(engine['cache_types'])}."
        ]
    if options.cache_type != "f16" and options.flash_attention == "off":
        return [
            f"llm_cache_type does not fit: {options.cache_type} needs flash attention, and"
            " llm_flash_attention is off. Use auto or on."
        ]
    return []
