"""The chain models' files: always the same, small, and chains that spell their answers."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml

from edge_host.weights.gguf import read_header, read_shape
from sandbox import smoke_model
from sandbox.instance import ROOT
from sandbox.smoke_model import ENDLESS, SMOKE, TOOLS, UNICODE, Chain

CHAINS = [SMOKE, TOOLS, UNICODE, ENDLESS]
chains = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("smoke") / "smoke.gguf"
    SMOKE.write(path)
    return path


def test_every_run_writes_the_same_bytes_and_the_catalogue_names_them(
    path: Path, tmp_path: Path
) -> None:
    again = tmp_path / "a-name-that-must-not-matter.gguf"
    SMOKE.write(again)
    content = path.read_bytes()
    assert again.read_bytes() == content
    entry = yaml.safe_load((ROOT / "models.yml").read_text())["models"]["smoke"]
    (file,) = entry["gguf"]["files"]
    assert file["size"] == len(content) < 1_000_000
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["proof"]["answer"] == SMOKE.answer
    header = read_shape(read_header(path))
    told = {key: entry["gguf"][key] for key in ("family", "quantization")} | entry["shape"]
    assert header == told


@chains
def test_the_file_says_what_it_is(chain: Chain, tmp_path: Path) -> None:
    chain.write(tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["general.name"].contents() == chain.name
    assert fields["llama.context_length"].contents() == smoke_model.CONTEXT
    assert "add_generation_prompt" in fields["tokenizer.chat_template"].contents()
    assert fields["tokenizer.ggml.tokens"].contents() == [w for w, _ in chain.vocabulary()]


@chains
def test_any_byte_can_be_in_a_prompt(chain: Chain) -> None:
    found = [word for word, kind in chain.vocabulary() if kind == gguf.TokenType.BYTE]
    assert found == [f"<0x{value:02X}>" for value in range(256)]


@chains
def test_no_token_is_there_twice(chain: Chain) -> None:
    found = [word for word, _ in chain.vocabulary()]
    assert len(found) == len(set(found))
    assert len(chain.steps) == len(set(chain.steps)), "a token alone decides what follows it"


def follow(chain: Chain, last: str, at_most: int) -> list[str]:
    """The tokens after `last`, computed as an engine does where weights are zero.

    That is: normalise, multiply, take the best.
    """
    embedding, output = chain.next_token_weights()
    known = [word for word, _ in chain.vocabulary()]
    said: list[str] = []
    token = known.index(last)
    for _ in range(at_most):
        state = embedding[token]
        state = state / np.sqrt(np.mean(state**2) + 1e-5)
        logits = np.sort(output @ state)
        # The best is so far ahead that a temperature of 1 changes nothing.
        assert logits[-1] - logits[-2] > 50
        token = int(np.argmax(output @ state))
        if known[token] == "<|end|>":
            break
        said.append(known[token])
    return said


def text(tokens: list[str]) -> str:
    """What tokens spell, by a way of its own: SentencePiece's rules on the joined tokens."""
    joined = "".join(tokens).replace("\u2581", " ").encode()
    return re.sub(rb"<0x(..)>", lambda found: bytes([int(found[1], 16)]), joined).decode()


@pytest.mark.parametrize("last", ["<|assistant|>", "<0x41>", "a", "<s>"])
@pytest.mark.parametrize("chain", [SMOKE, TOOLS, UNICODE], ids=lambda chain: chain.name)
def test_whatever_a_prompt_ends_with_the_answer_follows_and_stops(chain: Chain, last: str) -> None:
    said = follow(chain, last, 50)
    assert text(said) == chain.answer
    assert len(said) > 5, "a stream comes in several pieces"


def test_the_endless_one_begins_again() -> None:
    said = follow(ENDLESS, "<|assistant|>", 25)
    assert len(said) == 25
    assert text(said) == (ENDLESS.answer * 3)[: len(text(said))]
    assert ENDLESS.answer.startswith(" one two ")


def test_the_caller_calls_a_tool() -> None:
    opening, call, closing = TOOLS.answer.split("\n")
    assert (opening, closing) == ("<tool_call>", "</tool_call>")
    assert json.loads(call) == {"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}


def test_characters_are_cut_across_tokens() -> None:
    assert UNICODE.answer == "Gr\u00fc\u00dfe aus \u4e16\u754c\U0001f680\u00e9! Ende"
    cut = [step for step in UNICODE.steps if step.startswith("<0x")]
    assert len(cut) == len("\u4e16\u754c\U0001f680\u00e9".encode()) == 12
