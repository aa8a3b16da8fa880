"""Writes encoder models: a tiny embedding model and a tiny reranker, with predictable results.

Both are a BERT with the same tokens: the words of a short list, and characters, so that any ASCII
text has tokens. A token's embedding consists of numbers that are 1, -1 or 0, in parts: which token
it is, its place in the text, whether it is a word of the list, and room for a result.

`EMBEDDING` has no attention: a text's vector is the mean of its tokens, so texts that share words
are near to each other.

`RERANK` scores how many words occur twice in query and document together. In the first layer a word
attends to the same word in another place, and where there is none to the tokens that are no words;
it reads whether it found a word. In the second layer the first token reads the mean of that, which
is the score.

A file is the same, byte for byte, every time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

CONTEXT = 512
"""Tokens that a model claims to be trained for."""
_LIST = """
a and are at be by cat city capital do does dog eat eats evening fish for france from garden good
green has have how in is it its london morning of on or paris rain red river sea sleeps sofa spain
sun that the there they this to tree was water what when where which who why with yellow you
"""
WORDS = tuple(_LIST.split())
"""The words that are tokens of their own."""

# The parts of an embedding: which token, its place, whether it is a word, the result.
_TOKEN, _PLACE, _KIND, _FOUND = slice(0, 48), slice(48, 112), slice(112, 120), slice(120, 128)
WIDTH, FEED_FORWARD = 128, 64
# Exponents of the first layer of RERANK: of the same token, and of a token that is no word.
_SAME, _NO_WORD = 16.0, 5.0
_CLS, _SEP, _UNKNOWN, _PAD = "[CLS]", "[SEP]", "[UNK]", "[PAD]"
# How GGUF files mark a token that begins a word.
_BEGINS = "\u2581"


@dataclass(frozen=True)
class Layer:
    """The matrices of a layer's attention, of WIDTH rows and columns each; `asked` is added to each
    token's query.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    asked: np.ndarray


@dataclass(frozen=True)
class Encoder:
    """An encoder model: its name, how the results of its tokens become one, and its layers.

    `places` is the weight of a token's place.
    """

    name: str
    description: str
    pooling: gguf.PoolingType
    layers: tuple[Layer, ...]
    places: float

    def write(self, path: Path) -> None:
        """Write the model as a GGUF file."""
        writer = gguf.GGUFWriter(path, "bert")
        writer.add_name(self.name)
        writer.add_version("1")
        writer.add_description(self.description)
        writer.add_license("Apache-2.0")
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        self._describe(writer)
        self._add_tensors(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _describe(self, writer: gguf.GGUFWriter) -> None:
        tokens = vocabulary()
        ids = {word: token for token, (word, _) in enumerate(tokens)}
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_block_count(len(self.layers))
        writer.add_head_count(1)
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(False)
        writer.add_pooling_type(self.pooling)
        writer.add_vocab_size(len(tokens))
        writer.add_tokenizer_model("bert")
        writer.add_token_type_count(1)
        writer.add_token_list([word for word, _ in tokens])
        writer.add_token_types([kind for _, kind in tokens])
        writer.add_bos_token_id(ids[_CLS])
        writer.add_eos_token_id(ids[_SEP])
        writer.add_sep_token_id(ids[_SEP])
        writer.add_unk_token_id(ids[_UNKNOWN])
        writer.add_pad_token_id(ids[_PAD])
        if self.pooling == gguf.PoolingType.RANK:
            writer.add_classifier_output_labels(["relevance"])

    def _add_tensors(self, writer: gguf.GGUFWriter) -> None:
        tokens, places = tables()
        writer.add_tensor("token_embd.weight", tokens)
        writer.add_tensor("token_types.weight", _zeros(1, WIDTH))
        writer.add_tensor("position_embd.weight", places * np.float32(self.places))
        _add_norm(writer, "token_embd_norm")
        for number, layer in enumerate(self.layers):
            block = f"blk.{number}"
            for name, matrix, bias in (
                ("attn_q", layer.query, layer.asked),
                ("attn_k", layer.key, _zeros(WIDTH)),
                ("attn_v", layer.value, _zeros(WIDTH)),
                ("attn_output", np.eye(WIDTH, dtype=np.float32), _zeros(WIDTH)),
                ("ffn_up", _zeros(FEED_FORWARD, WIDTH), _zeros(FEED_FORWARD)),
                ("ffn_down", _zeros(WIDTH, FEED_FORWARD), _zeros(WIDTH)),
            ):
                writer.add_tensor(f"{block}.{name}.weight", matrix)
                writer.add_tensor(f"{block}.{name}.bias", bias)
            _add_norm(writer, f"{block}.attn_output_norm")
            _add_norm(writer, f"{block}.layer_output_norm")
        if self.pooling == gguf.PoolingType.RANK:
            writer.add_tensor("cls.weight", np.eye(WIDTH, dtype=np.float32))
            writer.add_tensor("cls.bias", _zeros(WIDTH))
            writer.add_tensor("cls.output.weight", _signs_in(_FOUND)[np.newaxis])
            writer.add_tensor("cls.output.bias", _zeros(1))


def vocabulary() -> list[tuple[str, gguf.TokenType]]:
    """All tokens and their types, in the order of their ids."""
    control = [(word, gguf.TokenType.CONTROL) for word in (_PAD, _CLS, _SEP)]
    # Text is put into lower case before it becomes tokens.
    characters = [chr(value) for value in range(0x21, 0x7F) if not chr(value).isupper()]
    single = set(characters)
    texts = [
        *(_BEGINS + each for each in characters),
        *characters,
        *(_BEGINS + each for each in WORDS if each not in single),
    ]
    normal = [(text, gguf.TokenType.NORMAL) for text in texts]
    return [*control, (_UNKNOWN, gguf.TokenType.UNKNOWN), *normal]


def tables() -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of tokens and of places: float32, of WIDTH columns."""
    words = [word for word, _ in vocabulary()]
    tokens, places = _zeros(len(words), WIDTH), _zeros(CONTEXT, WIDTH)
    for token, word in enumerate(words):
        tokens[token, _TOKEN] = _signs(f"token {word}")[_TOKEN]
        is_word = word.startswith(_BEGINS) and word.removeprefix(_BEGINS) in WORDS
        tokens[token] += _signs_in(_KIND) * (1 if is_word else -1)
    for place in range(CONTEXT):
        places[place, _PLACE] = _signs(f"place {place}")[_PLACE]
    return tokens, places


def _signs_in(part: slice) -> np.ndarray:
    """Alternating signs in a part of an embedding: their sum is 0, so norms keep them."""
    row = _zeros(WIDTH)
    row[part] = [1, -1] * (_size(part) // 2)
    return row


def _size(part: slice) -> int:
    return int(part.stop - part.start)


def _no_attention() -> Layer:
    nothing = _zeros(WIDTH, WIDTH)
    return Layer(nothing, nothing, nothing, _zeros(WIDTH))


def _find_again() -> Layer:
    """Each token reads whether the same token in another place is a word."""
    weights = _zeros(WIDTH)
    weights[_TOKEN] = _SAME / _size(_TOKEN)
    weights[_PLACE] = -_SAME / _size(_PLACE)  # a token does not attend to itself
    weights[_KIND] = -_NO_WORD / _size(_KIND)
    query = np.eye(WIDTH, dtype=np.float32)
    query[_KIND] = 0
    # An engine divides what query and key make by the root of the width.
    key = np.diag(weights * np.float32(WIDTH**0.5))
    return Layer(query, key, _copy(_KIND, _FOUND), _signs_in(_KIND))


def _mean() -> Layer:
    """Each token reads the mean of what all tokens found."""
    nothing = _zeros(WIDTH, WIDTH)
    return Layer(nothing, nothing, 4 * _copy(_FOUND, _FOUND), _zeros(WIDTH))


def _copy(source: slice, target: slice) -> np.ndarray:
    """The matrix that moves a part of an embedding to another."""
    matrix = _zeros(WIDTH, WIDTH)
    matrix[target, source] = np.eye(_size(source))
    return matrix


def _signs(text: str) -> np.ndarray:
    """As many numbers as WIDTH, 1 or -1, which a text decides."""
    bits = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    return np.unpackbits(bits)[:WIDTH].astype(np.float32) * 2 - 1


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _add_norm(writer: gguf.GGUFWriter, name: str) -> None:
    writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor(f"{name}.bias", _zeros(WIDTH))


EMBEDDING = Encoder(
    "smoke-embedding",
    "Texts that share words are near to each other",
    gguf.PoolingType.MEAN,
    (_no_attention(),),
    places=0.1,
)
RERANK = Encoder(
    "smoke-rerank",
    "Scores by how many words query and document share",
    gguf.PoolingType.RANK,
    (_find_again(), _mean()),
    places=1.0,
)
