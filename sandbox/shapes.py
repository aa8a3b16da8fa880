"""Writes models of a given shape with random weights: they say nothing, and take memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from sandbox.smoke_model import Chain, describe, words

CONTEXT = 32768
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def write(path: Path, shape: Mapping[str, int], *, tied: bool = False) -> None:
    """Write a llama of the shape (as models.yml has shapes) as a GGUF file with Q8_0 weights.

    The same shape gives the same bytes. The vocabulary must have room for the chain models'. The
    output layer of one that is tied is its embedding table.
    """
    random = np.random.default_rng(0)
    chain = Chain("shape", words("random weights"))
    vocabulary = chain.vocabulary()
    vocabulary += [
        (f"word{n}", gguf.TokenType.NORMAL) for n in range(shape["vocabulary"] - len(vocabulary))
    ]
    width, size = shape["embedding"], shape["head_size"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("shape")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    describe(writer, shape, vocabulary)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_chat_template(chain.template)

    def tensor(name: str, rows: int, columns: int) -> None:
        values = random.standard_normal((rows, columns), dtype=np.float32) * 0.02
        writer.add_tensor(name, gguf.quants.quantize(values, Q8_0), raw_dtype=Q8_0)

    ones = np.ones(width, dtype=np.float32)
    tensor("token_embd.weight", shape["vocabulary"], width)
    writer.add_tensor("output_norm.weight", ones)
    if not tied:
        tensor("output.weight", shape["vocabulary"], width)
    for layer in range(shape["layers"]):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", ones)
        tensor(f"{block}.attn_q.weight", shape["heads"] * size, width)
        tensor(f"{block}.attn_k.weight", shape["kv_heads"] * size, width)
        tensor(f"{block}.attn_v.weight", shape["kv_heads"] * size, width)
        tensor(f"{block}.attn_output.weight", width, shape["heads"] * size)
        tensor(f"{block}.ffn_gate.weight", shape["feed_forward"], width)
        tensor(f"{block}.ffn_up.weight", shape["feed_forward"], width)
        tensor(f"{block}.ffn_down.weight", width, shape["feed_forward"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
