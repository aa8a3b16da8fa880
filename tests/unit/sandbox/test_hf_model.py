"""The models in Hugging Face's format: the same bytes every time, and what the GGUF file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from sandbox import hf_model, smoke_model
from sandbox.smoke_model import Chain

CHAINS = [smoke_model.SMOKE, smoke_model.TOOLS, smoke_model.UNICODE, smoke_model.ENDLESS]
EPSILON = 1e-5


def converted(chain: Chain, folder: Path) -> Path:
    folder.mkdir()
    chain.write(folder / "source.gguf")
    hf_model.convert(folder / "source.gguf", folder / "model")
    return folder / "model"


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tensors(path: Path) -> dict[str, np.ndarray]:
    """A safetensors file, read by its specification: no gap, nothing left over."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    assert begin % 8 == 0
    header = json.loads(content[8:begin])
    assert header.pop("__metadata__") == {"format": "pt"}
    found, expected = {}, 0
    for name, about in header.items():
        start, end = about["data_offsets"]
        assert (about["dtype"], start) == ("F16", expected)
        expected = end
        values = np.frombuffer(content[begin + start : begin + end], "<f2")
        found[name] = values.reshape(about["shape"])
    assert begin + expected == len(content)
    return found


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_every_run_writes_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    first, again = (converted(chain, tmp_path / name) for name in ("first", "again"))
    assert {file.name for file in first.iterdir()} == set(hf_model.FILES)
    for name in hf_model.FILES:
        assert (first / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_the_chain_spells_its_answer_after_a_prompt(chain: Chain, tmp_path: Path) -> None:
    """What an engine computes where the layers are zero: normalise, multiply, take the best."""
    folder = converted(chain, tmp_path / "chain")
    weights = tensors(folder / "model.safetensors")
    config, tokenizer = load(folder / "config.json"), load(folder / "tokenizer.json")
    layers = [name for name in weights if name.startswith("model.layers.0.")]
    assert len(layers) == 9
    assert not any(weights[name].any() for name in layers if "norm" not in name)
    vocabulary = tokenizer["model"]["vocab"]
    words = {token: word for word, token in vocabulary.items()}
    # Those that no answer has in it.
    for last in ("<|assistant|>", "<s>", "A", "<0x41>"):
        token = vocabulary[last]
        said: list[str] = []
        while len(said) < len(chain.steps) + 1:
            state = weights["model.embed_tokens.weight"][token].astype(np.float32)
            state /= np.sqrt(np.mean(state**2) + EPSILON)
            state *= weights["model.norm.weight"]
            token = int(np.argmax(weights["lm_head.weight"] @ state))
            if token == config["eos_token_id"]:
                break
            said.append(words[token])
        expected = [*chain.steps, chain.steps[0]] if chain.endless else [*chain.steps]
        assert said == expected


def test_the_configuration_is_that_of_the_file(tmp_path: Path) -> None:
    folder = converted(smoke_model.SMOKE, tmp_path / "smoke")
    config = load(folder / "config.json")
    tokenizer = load(folder / "tokenizer.json")
    about = load(folder / "tokenizer_config.json")
    vocabulary = smoke_model.SMOKE.vocabulary()
    assert config["vocab_size"] == len(vocabulary)
    assert config["head_dim"] == smoke_model.HEAD_SIZE
    assert config["num_hidden_layers"] == smoke_model.LAYERS
    assert config["max_position_embeddings"] == smoke_model.CONTEXT
    assert config["tie_word_embeddings"] is False
    assert about["chat_template"] == smoke_model.SMOKE.template
    assert tokenizer["model"]["vocab"] == {word: i for i, (word, _) in enumerate(vocabulary)}
    # A character that is no token is its bytes, and a space is written as SentencePiece does.
    assert tokenizer["model"]["byte_fallback"] is True
    assert {f"<0x{value:02X}>" for value in range(256)} <= tokenizer["model"]["vocab"].keys()
    assert tokenizer["normalizer"]["content"] == "\u2581"
    # A role's tag that came as characters would let a message end and begin another.
    special = [entry["content"] for entry in tokenizer["added_tokens"] if entry["special"]]
    assert special == ["<unk>", "<s>", "<|end|>", *(f"<|{r}|>" for r in ROLES)]
    assert about["eos_token"] == "<|end|>"
    assert vocabulary[config["eos_token_id"]][0] == "<|end|>"


ROLES = ("system", "user", "assistant", "tool")


def write_llama(path: Path, weights: dict[str, np.ndarray], tokenizer: str, pre: str) -> None:
    """A llama of four heads of eight, two for keys and values, and a tokenizer of that kind."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(4)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["<|end|>", "a", "b", "ab"])
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * 3])
    writer.add_token_merges(["a b"])
    for add in (writer.add_unk_token_id, writer.add_bos_token_id, writer.add_eos_token_id):
        add(0)
    writer.add_chat_template("{{ messages }}")
    for name, values in weights.items():
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_quantised_weights_come_out_in_the_order_they_were_trained_in(tmp_path: Path) -> None:
    """As llama.cpp's own converter reorders them, but the other way."""
    wanted = {
        # Whole numbers up to 127 survive this quantisation, where 127 is among each 32.
        name: np.arange(rows * 32, dtype=np.float32).reshape(rows, 32) % 128
        for name, rows in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16))
    }
    for values in wanted.values():
        values[:, 0] = 127
    stored = {f"blk.0.{name}.weight": values for name, values in wanted.items()}
    for name, heads in (("attn_q", 4), ("attn_k", 2)):
        values = wanted[name]
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, 32)
        stored[f"blk.0.{name}.weight"] = halves.swapaxes(1, 2).reshape(values.shape)
    write_llama(tmp_path / "llama.gguf", stored, "gpt2", "smollm")
    hf_model.convert(tmp_path / "llama.gguf", tmp_path / "model")
    found = tensors(tmp_path / "model" / "model.safetensors")
    for name, values in wanted.items():
        projection = f"model.layers.0.self_attn.{name[-1]}_proj.weight"
        assert np.array_equal(found[projection], values), projection
    config = load(tmp_path / "model" / "config.json")
    assert config["tie_word_embeddings"] is True
    assert config["rope_theta"] == 100000.0
    tokenizer = load(tmp_path / "model" / "tokenizer.json")
    assert tokenizer["model"]["merges"] == [["a", "b"]]
    assert tokenizer["decoder"]["type"] == "ByteLevel"


def test_another_tokenizer_is_refused_by_its_name(tmp_path: Path) -> None:
    write_llama(tmp_path / "llama.gguf", {}, "gpt2", "qwen2")
    with pytest.raises(ValueError, match="qwen2"):
        hf_model.convert(tmp_path / "llama.gguf", tmp_path / "model")
