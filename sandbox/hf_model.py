"""Writes a model in Hugging Face's format, which vLLM serves, from its GGUF file.

Names, settings, weights, tokens and the chat template are read off the GGUF file, so that the two
cannot tell different stories. It knows llamas with the two kinds of tokenizer that the sandbox's
models have: SentencePiece without merges (the chain models), and byte-level BPE (SmolLM2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What the format is made of: all in one folder."""

_SPACE = "\u2581"
_OUTPUT = "output.weight"
_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(source: Path, folder: Path) -> None:
    """Write FILES of the model in `source`, a GGUF file, into `folder`, made where missing.

    The same source gives the same bytes. Weights become float16, whatever they were. Raises
    KeyError for a model that is no llama, ValueError for a tokenizer of another kind.
    """
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tied = _OUTPUT not in {tensor.name for tensor in reader.tensors}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("config.json", _config(fields, tied)),
        ("tokenizer.json", _tokenizer(fields)),
        ("tokenizer_config.json", _tokenizer_config(fields)),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _write_tensors(folder / "model.safetensors", dict(_tensors(reader, fields)))


def _config(fields: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields.get("llama.rope.freq_base", 10000.0),
        "max_position_embeddings": fields["llama.context_length"],
        "tie_word_embeddings": tied,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }


def _tokenizer(fields: Mapping[str, Any]) -> dict[str, Any]:
    words = fields["tokenizer.ggml.tokens"]
    kinds = fields["tokenizer.ggml.token_type"]
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {word: token for token, word in enumerate(words)},
        "merges": [],
    }
    parts: dict[str, Any] = {"normalizer": None, "pre_tokenizer": None}
    kind = (fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre"))
    if kind == ("llama", None):
        # Without merges a text is its characters; those that are no tokens are their bytes.
        model |= {"byte_fallback": True, "unk_token": _word(fields, "unknown")}
        parts["normalizer"] = _replace(" ", _SPACE)
        spaces = _replace(_SPACE, " ")
        decoders = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]
        parts["decoder"] = {"type": "Sequence", "decoders": decoders}
    elif kind == ("gpt2", "smollm"):
        model["merges"] = [pair.split(" ") for pair in fields["tokenizer.ggml.merges"]]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        split = [{"type": "Digits", "individual_digits": True}, byte_level | {"use_regex": True}]
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": split}
        parts["decoder"] = byte_level | {"use_regex": True}
    else:
        raise ValueError(f"The tokenizer is {kind}; accepted is SentencePiece's, or SmolLM2's.")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # These are recognised in a prompt, and left out of an answer's text.
        "added_tokens": [
            _special(token, words[token])
            for token, kind in enumerate(kinds)
            if kind in (gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN)
        ],
        **parts,
        "post_processor": None,
        "model": model,
    }


def _replace(what: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": what}, "content": by}


def _special(token: int, word: str) -> dict[str, Any]:
    strict = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": word, **strict, "special": True}


def _tokenizer_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "unk_token": _word(fields, "unknown"),
        "bos_token": _word(fields, "bos"),
        "eos_token": _word(fields, "eos"),
        "chat_template": fields["tokenizer.chat_template"],
    }


def _word(fields: Mapping[str, Any], role: str) -> str:
    word: str = fields["tokenizer.ggml.tokens"][fields[f"tokenizer.ggml.{role}_token_id"]]
    return word


def _tensors(
    reader: gguf.GGUFReader, fields: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors under their names in the other format, as float16."""
    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    for tensor in reader.tensors:
        *block, part, weight = tensor.name.split(".")
        layer = f"model.layers.{block[1]}." if block else ""
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if part in heads:
            # Rotary pairs of a head are neighbours in GGUF, half a head apart in the other.
            rows, width = values.shape
            pairs = values.reshape(heads[part], rows // heads[part] // 2, 2, width)
            values = pairs.swapaxes(1, 2).reshape(rows, width)
        yield f"{layer}{_TENSORS[part]}.{weight}", values.astype("<f2")


def _write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file: the header's length in 8 bytes, the header in JSON, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, values in tensors.items():
        end = begin + values.nbytes
        header[name] = {
            "dtype": "F16",
            "shape": list(values.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    words = json.dumps(header, separators=(",", ":")).encode()
    # The numbers begin at a multiple of 8.
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        for values in tensors.values():
            file.write(values.tobytes())
