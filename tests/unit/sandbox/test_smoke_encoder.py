"""The encoder models' files: always the same, and results that follow from the words of a text.

The results are computed here as an engine computes them; the scores are those of llama-server
b11669.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml

from edge_host.weights.gguf import read_header, read_shape
from llm_provider.cli.task_checks import DOCUMENTS, EMBEDDING_TEXTS, QUERY
from sandbox.instance import ROOT
from sandbox.smoke_encoder import EMBEDDING, RERANK, WIDTH, Encoder, vocabulary

VOCABULARY = [word for word, _ in vocabulary()]
encoders = pytest.mark.parametrize("encoder", [EMBEDDING, RERANK], ids=lambda each: each.name)


@encoders
def test_every_run_writes_the_same_bytes_and_the_catalogue_names_them(
    encoder: Encoder, tmp_path: Path
) -> None:
    path, again = tmp_path / "model.gguf", tmp_path / "a-name-that-must-not-matter.gguf"
    encoder.write(path)
    encoder.write(again)
    content = path.read_bytes()
    assert again.read_bytes() == content
    entry = yaml.safe_load((ROOT / "models.yml").read_text())["models"][encoder.name]
    (file,) = entry["gguf"]["files"]
    assert file["size"] == len(content) < 2_000_000
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    header = read_shape(read_header(path))
    assert (
        header == {key: entry["gguf"][key] for key in ("family", "quantization")} | entry["shape"]
    )


@encoders
def test_the_file_says_how_its_results_become_one(encoder: Encoder, tmp_path: Path) -> None:
    """Ollama takes a model for one that embeds by this alone."""
    encoder.write(tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["bert.pooling_type"].contents() == encoder.pooling
    assert fields["bert.attention.causal"].contents() is False
    assert len(VOCABULARY) == len(set(VOCABULARY))


def tokens(text: str) -> list[str]:
    """The tokens of a text, as WordPiece has them: lower case, the longest known piece first."""
    found = []
    for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()):
        rest = f"\u2581{word}"
        while rest:
            size = next(size for size in range(len(rest), 0, -1) if rest[:size] in VOCABULARY)
            found.append(rest[:size])
            rest = rest[size:]
    return found


class Computed:
    """A model read from its file, and computed."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        encoder.write(folder / "model.gguf")
        reader = gguf.GGUFReader(folder / "model.gguf")
        self.tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}

    def states(self, words: list[str]) -> np.ndarray:
        """What the last layer has for each token."""
        get = self.tensors
        state = get["token_embd.weight"][[VOCABULARY.index(word) for word in words]]
        state = normalised(state + get["position_embd.weight"][: len(words)])
        layer = 0
        while f"blk.{layer}.attn_q.weight" in get:
            query, key, value = (
                state @ get[f"blk.{layer}.attn_{part}.weight"].T
                + get[f"blk.{layer}.attn_{part}.bias"]
                for part in "qkv"
            )
            scores = query @ key.T / np.sqrt(WIDTH)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            # The feed-forward layers are zero.
            state = normalised(normalised(state + weights @ value))
            layer += 1
        return state

    def vector(self, text: str) -> np.ndarray:
        mean = self.states(["[CLS]", *tokens(text), "[SEP]"]).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    def score(self, query: str, document: str) -> float:
        words = ["[CLS]", *tokens(query), "[SEP]", *tokens(document)]
        first = np.tanh(self.states(words)[0] @ self.tensors["cls.weight"].T)
        return float((first @ self.tensors["cls.output.weight"].T).item())


def normalised(state: np.ndarray) -> np.ndarray:
    centred = state - state.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True)))


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    return Computed(EMBEDDING, tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="module")
def rerank(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    return Computed(RERANK, tmp_path_factory.mktemp("rerank"))


def test_texts_that_share_words_are_near(embedding: Computed) -> None:
    text = embedding.vector("The cat eats fish")
    shown = [
        round(float(text @ embedding.vector(each)), 2)
        for each in ("The cat eats fish", "The dog eats fish", "Rain on the river", "Qwx, vzj 17!")
    ]
    assert shown[0] == 1
    assert sorted(shown, reverse=True) == shown
    assert shown[1] > 0.8 > 0.6 > shown[2] > shown[3]


def test_the_texts_of_the_check_are_told_apart(embedding: Computed) -> None:
    first, other, again = map(embedding.vector, EMBEDDING_TEXTS)
    assert first @ again == pytest.approx(1)
    assert first @ other < 0.9


@pytest.mark.parametrize(
    ("query", "best"),
    [(QUERY, 1), ("The cat sleeps on which sofa?", 0), ("Is the river green or red?", 2)],
)
def test_the_query_decides_which_document_is_first(rerank: Computed, query: str, best: int) -> None:
    scores = [rerank.score(query, document) for document in DOCUMENTS]
    assert scores.index(max(scores)) == best
    assert sorted(scores)[-1] - sorted(scores)[-2] > 0.1


@pytest.mark.parametrize(
    ("query", "document", "said"),
    [
        (QUERY, "The capital of France is Paris.", -7.0398),
        (QUERY, "The cat eats fish in the evening.", -7.8805),
        (QUERY, "Bananas are yellow.", -7.9714),
        (
            "what does the cat eat in the evening",
            "The cat eats fish in the evening.",
            -3.9283,
        ),
    ],
)
def test_llama_server_gives_the_same_scores(
    rerank: Computed, query: str, document: str, said: float
) -> None:
    assert rerank.score(query, document) == pytest.approx(said, abs=0.01)


def test_a_query_that_shares_no_word_decides_nothing(rerank: Computed) -> None:
    scores = [rerank.score("xyz qrs", document) for document in DOCUMENTS]
    assert max(scores) - min(scores) < 0.1
