"""Computes how much memory llama.cpp needs for a model's weights on a CPU.

llama.cpp maps a GGUF file into memory, and the kernel can drop what it has read of it. Weights that
a CPU multiplies faster in another order are copied into buffers of their own (CPU_REPACK, AMX),
which are anonymous memory. Which weights these are depends on their type, their shape and the CPU's
features: see ggml/src/ggml-cpu/repack.cpp and ggml/src/ggml-cpu/amx of llama.cpp. A model whose
output layer is its embedding table then has that table twice: as it is in the file, where tokens
are looked up, and repacked.

A plan is made before the file is on a host, so its tensors are derived from the model's shape and
from the rules by which llama-quantize chooses their types (src/llama-quant.cpp). Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from edge_fleet.plan.encoders import ENCODERS, UNGATED

# Type of a tensor -> (numbers in a block, bytes of a block).
BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "IQ4_NL": (32, 18), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144),
    "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ4_XS": (256, 136),
}  # fmt: skip
# Quantization of a file -> the type that most of its tensors have.
_BASE = {
    "F32": "F32", "F16": "F16", "BF16": "BF16",
    "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0", "Q5_1": "Q5_1", "Q8_0": "Q8_0",
    "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS", "Q2_K": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
}  # fmt: skip
# What stands in for a type whose blocks do not fit a tensor's rows.
_FALLBACK = {
    "IQ4_XS": "IQ4_NL", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}  # fmt: skip
# The features by which a backend for x86 (libggml-cpu-*.so) is chosen, as /proc/cpuinfo names them.
# edge_host.constants.CPU_FEATURES has all that are read on hosts.
AVX2 = frozenset({"avx", "avx2", "bmi2", "f16c", "fma"})
AVX512 = AVX2 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
AMX = AVX512 | {"amx_int8", "amx_tile", "avx512_bf16", "avx512_vnni", "avx512vbmi"}
DOTPROD = frozenset({"asimddp"})
# Features -> type -> what the number of a tensor's rows must be divisible by to be repacked.
# i8mm and SVE choose other kernels for the types that dotprod repacks, and no further types.
_REPACKED: tuple[tuple[frozenset[str], dict[str, int]], ...] = (
    (AVX2, {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8}),
    (AVX512, {"Q2_K": 8}),
    (DOTPROD, {"Q4_0": 4, "Q8_0": 4, "IQ4_NL": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8}),
)
# Type -> (what a row's length must be divisible by, bytes that AMX adds to a block). A tile has 16
# rows, and two are computed at once.
_AMX_ROWS = 32
_AMX_TYPES = {
    "F16": (16, 0), "Q4_0": (32, 0), "Q4_1": (32, 0), "Q8_0": (32, 4),
    "Q4_K": (256, 4), "Q5_K": (256, 4), "Q6_K": (256, 0), "IQ4_XS": (256, 2),
}  # fmt: skip
# How far the derived tensors may be from the file's size; a mixture of experts, or a family with
# layers of several widths, is further off.
_NEAR = 0.1
# A file's header has each token and each merge of the vocabulary.
_HEADER_BYTES = 48


class Tensor(NamedTuple):
    """A matrix of a model: its name in the file without the layer, its type and its size."""

    name: str
    type: str
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        numbers, block = BLOCKS[self.type]
        return self.rows * self.columns // numbers * block


class Weights(NamedTuple):
    """Bytes of a model's weights in memory: `mapped` from the file, `repacked` in own buffers."""

    mapped: int
    repacked: int


def repacked_size(tensor: Tensor, features: Collection[str]) -> int | None:
    """Return the bytes of a matrix that a CPU keeps repacked; None for one that it does not."""
    found = frozenset(features)
    if found >= AMX and tensor.type in _AMX_TYPES and tensor.rows % _AMX_ROWS == 0:
        row, extra = _AMX_TYPES[tensor.type]
        if tensor.columns % row == 0:
            return tensor.size + tensor.rows * tensor.columns // BLOCKS[tensor.type][0] * extra
    for needed, types in _REPACKED:
        if found >= needed and tensor.type in types and tensor.rows % types[tensor.type] == 0:
            return tensor.size
    return None


def in_memory(
    shape: Mapping[str, int],
    quantization: str,
    size: int,
    features: Collection[str],
    family: str = "",
) -> Weights:
    """Return how a CPU with these features keeps the weights of a file of `size` bytes.

    `shape` is as models.yml has it, `quantization` and `family` as a GGUF file's header names
    them. Where the tensors cannot be derived, the estimate is an upper bound.
    """
    found = _of_file(shape, quantization, size, family)
    if found is None:
        return _at_most(shape, size, features)
    mapped, repacked = size, 0
    for tensor in found:
        kept = repacked_size(tensor, features)
        if kept is not None and tensor.name != "token_embd":
            repacked += kept
            # The output layer of a model that has none in its file is its embedding table.
            mapped -= tensor.size if tensor.name != "tied output" else 0
    return Weights(mapped, repacked)


def tensors(shape: Mapping[str, int], quantization: str, tied: bool) -> list[Tensor]:
    """Return the matrices of a model, as llama-quantize makes them; `tied` is one without an output
    layer in its file, which is then a second use of its embedding table ("tied output").
    """
    base = _BASE[quantization]
    embedding, layers = shape["embedding"], shape["layers"]
    query = shape["heads"] * shape["head_size"]
    value = shape["kv_heads"] * shape["head_size"]
    feed_forward, vocabulary = shape["feed_forward"], shape["vocabulary"]
    last = _fitting(_output_type(base, embedding), embedding)
    first = last if tied else _fitting(base, embedding)
    found = [
        Tensor("token_embd", first, vocabulary, embedding),
        Tensor("tied output" if tied else "output", last, vocabulary, embedding),
    ]
    for layer in range(layers):
        for name, rows, columns in (
            ("attn_q", query, embedding),
            ("attn_k", value, embedding),
            ("attn_v", value, embedding),
            ("attn_output", embedding, query),
            ("ffn_gate", feed_forward, embedding),
            ("ffn_up", feed_forward, embedding),
            ("ffn_down", embedding, feed_forward),
        ):
            kind = _type_in_layer(name, quantization, shape, layer) or base
            found.append(Tensor(name, _fitting(kind, columns), rows, columns))
    return found


def _of_file(
    shape: Mapping[str, int], quantization: str, size: int, family: str
) -> list[Tensor] | None:
    """The matrices of a file of that size, or None where they cannot be derived."""
    if quantization not in _BASE:
        return None
    wanted = size - _HEADER_BYTES * shape["vocabulary"]
    if family in ENCODERS:
        choices = [_of_encoder(tensors(shape, quantization, tied=True), family)]
    else:
        choices = [tensors(shape, quantization, tied) for tied in (True, False)]
    sizes = [sum(each.size for each in some if each.name != "tied output") for some in choices]
    distance, nearest = min((abs(found - wanted), index) for index, found in enumerate(sizes))
    return choices[nearest] if distance <= _NEAR * size else None


def _of_encoder(found: list[Tensor], family: str) -> list[Tensor]:
    """The matrices of an encoder, which has no output layer."""
    absent = {"tied output", "ffn_gate"} if family in UNGATED else {"tied output"}
    return [each for each in found if each.name not in absent]


def _at_most(shape: Mapping[str, int], size: int, features: Collection[str]) -> Weights:
    """Everything repacked into the type that grows most, and the embedding table beside it."""
    table = Tensor("token_embd", "Q8_0", shape["vocabulary"], shape["embedding"]).size
    if frozenset(features) >= AMX:
        block = BLOCKS["Q8_0"][1]
        return Weights(table, size * (block + _AMX_TYPES["Q8_0"][1]) // block)
    if any(frozenset(features) >= needed for needed, _ in _REPACKED):
        return Weights(table, size)
    return Weights(size, 0)


def _output_type(base: str, columns: int) -> str:
    """The type of the output layer, and of an embedding table that is one."""
    if base in ("F32", "F16", "BF16"):
        return base
    return "Q8_0" if base == "Q8_0" or columns % BLOCKS[base][0] else "Q6_K"


def _fitting(kind: str, columns: int) -> str:
    """The type, or what stands in for it where its blocks do not fit a row."""
    if columns % BLOCKS[kind][0] == 0:
        return kind
    kind = _FALLBACK.get(kind, "F16")
    return kind if columns % BLOCKS[kind][0] == 0 else "F16"


def _type_in_layer(
    name: str, quantization: str, shape: Mapping[str, int], layer: int
) -> str | None:
    """The type of a matrix where llama-quantize chooses another than the file's own."""
    layers = shape["layers"]
    shared = shape["heads"] // shape["kv_heads"] >= 4  # values that four and more heads read
    first = layer < layers // 8
    more = first or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    if name == "attn_v":
        found = {
            "Q2_K": "Q4_K" if shared else "Q3_K",
            "Q3_K_M": "Q5_K" if layer < 2 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "Q4_K_S": "Q5_K" if layer < 4 else None,
            "Q4_K_M": "Q6_K" if more else None,
            "Q5_K_M": "Q6_K" if more else None,
            "IQ4_NL": "Q5_K" if shared else None,
            "IQ4_XS": "Q5_K" if shared else None,
        }
    elif name == "ffn_down":
        found = {
            "Q2_K": "Q3_K",
            "Q3_K_M": "Q5_K" if layer < layers // 16 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "Q4_K_S": "Q5_K" if first else None,
            "Q4_K_M": "Q6_K" if more else None,
            "Q5_K_M": "Q6_K" if more else None,
            "IQ4_NL": "Q5_K" if first else None,
            "IQ4_XS": "Q5_K" if first else None,
        }
    elif name == "attn_output":
        found = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
    else:
        return None
    return found.get(quantization)
