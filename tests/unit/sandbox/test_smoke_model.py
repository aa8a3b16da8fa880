"""The smoke model's file: always the same, small, and a chain that spells the answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml

from sandbox import smoke_model
from sandbox.instance import ROOT


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("smoke") / "smoke.gguf"
    smoke_model.write(path)
    return path


def test_every_run_writes_the_same_bytes_and_the_catalogue_names_them(
    path: Path, tmp_path: Path
) -> None:
    again = tmp_path / "a-name-that-must-not-matter.gguf"
    smoke_model.write(again)
    content = path.read_bytes()
    assert again.read_bytes() == content
    entry = yaml.safe_load((ROOT / "models.yml").read_text())["models"]["smoke"]
    assert entry["gguf"]["size"] == len(content) < 1_000_000
    assert entry["gguf"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["proof"]["answer"] == smoke_model.ANSWER
    shape = entry["shape"]
    assert shape["layers"] == smoke_model.LAYERS
    assert shape["kv_heads"] == smoke_model.KV_HEADS
    assert shape["head_size"] == smoke_model.HEAD_SIZE
    assert shape["vocabulary"] == len(smoke_model.vocabulary())
    assert shape["context_trained"] == smoke_model.CONTEXT


def test_the_file_says_what_it_is(path: Path) -> None:
    fields = gguf.GGUFReader(path).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["general.name"].contents() == "smoke"
    assert fields["llama.context_length"].contents() == smoke_model.CONTEXT
    assert "add_generation_prompt" in fields["tokenizer.chat_template"].contents()
    assert fields["tokenizer.ggml.tokens"].contents() == [w for w, _ in smoke_model.vocabulary()]


def test_any_byte_can_be_in_a_prompt() -> None:
    words = [word for word, kind in smoke_model.vocabulary() if kind == gguf.TokenType.BYTE]
    assert words == [f"<0x{value:02X}>" for value in range(256)]


def test_no_token_is_there_twice() -> None:
    words = [word for word, _ in smoke_model.vocabulary()]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("last", ["<|assistant|>", "<0x41>", "a", "\u2581", "<s>"])
def test_whatever_a_prompt_ends_with_the_answer_follows_and_stops(last: str) -> None:
    """What an engine computes where weights are zero: normalise, multiply, take the best."""
    embedding, output = smoke_model.next_token_weights()
    words = [word for word, _ in smoke_model.vocabulary()]
    said: list[str] = []
    token = words.index(last)
    for _ in range(50):
        state = embedding[token]
        state = state / np.sqrt(np.mean(state**2) + 1e-5)
        logits = np.sort(output @ state)
        # The best is so far ahead that a temperature of 1 changes nothing.
        assert logits[-1] - logits[-2] > 50
        token = int(np.argmax(output @ state))
        if words[token] == "<|end|>":
            break
        said.append(words[token])
    assert "".join(said).replace("\u2581", " ") == smoke_model.ANSWER
    assert len(said) > 5, "a stream comes in several pieces"
