"""Writes the smoke model: a tiny language model that gives one known answer to any question.

It is a llama of one layer whose attention and feed-forward weights are zero: what a token's
embedding says goes straight to the output, so each token alone decides the next one. The answer's
tokens form a chain; every other token (whatever a prompt ends with) leads to its beginning. Any
text can be a prompt, since the vocabulary has all bytes. The file is the same, byte for byte, every
time.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

ANSWER = "All systems are ready: the edge model answers."
LAYERS = 1
KV_HEADS = 1
HEAD_SIZE = 64
CONTEXT = 32768
"""Tokens that the model claims to be trained for."""

_WIDTH = KV_HEADS * HEAD_SIZE
_FEED_FORWARD = 64
# After normalisation a state has the length sqrt(_WIDTH) = 8, so the next token's logit is 80 and
# all others' is 0: the same answer at any usual temperature.
_CERTAINTY = 10.0
_UNKNOWN, _BEGIN, _END = "<unk>", "<s>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# How SentencePiece writes a space.
_SPACE = "\u2581"
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def chain() -> list[str]:
    """The answer's tokens, a word each; all but the first begin with a space."""
    first, *others = ANSWER.split(" ")
    return [first, *(_SPACE + word for word in others)]


def vocabulary() -> list[tuple[str, gguf.TokenType]]:
    """All tokens and their types, in the order of their ids."""
    control = [(word, gguf.TokenType.CONTROL) for word in (_BEGIN, _END, *_ROLES)]
    byte = [(f"<0x{value:02X}>", gguf.TokenType.BYTE) for value in range(256)]
    # Printable characters of ASCII are tokens too, so a plain prompt is one token a character.
    characters = [chr(value) for value in range(0x21, 0x7F)]
    normal = [(word, gguf.TokenType.NORMAL) for word in (_SPACE, *characters, *chain())]
    return [(_UNKNOWN, gguf.TokenType.UNKNOWN), *control, *byte, *normal]


def next_token_weights() -> tuple[np.ndarray, np.ndarray]:
    """Embedding and output matrices, both float32 of shape (tokens, width).

    State 0 is `before the answer`; state i is `after its i-th token`.
    """
    words = [word for word, _ in vocabulary()]
    steps = chain()
    embedding = np.zeros((len(words), _WIDTH), dtype=np.float32)
    output = np.zeros((len(words), _WIDTH), dtype=np.float32)
    for token, word in enumerate(words):
        state = steps.index(word) + 1 if word in steps else 0
        embedding[token, state] = 1.0
    for state, word in enumerate([*steps, _END]):
        output[words.index(word), state] = _CERTAINTY
    return embedding, output


def write(path: Path) -> None:
    """Write the model as a GGUF file."""
    words = vocabulary()
    ids = {word: token for token, (word, _) in enumerate(words)}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("smoke")
    writer.add_version("1")
    writer.add_description(f"Answers every question with: {ANSWER}")
    writer.add_license("Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(words))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(KV_HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)

    writer.add_tokenizer_model("llama")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([kind for _, kind in words])
    writer.add_unk_token_id(ids[_UNKNOWN])
    writer.add_bos_token_id(ids[_BEGIN])
    writer.add_eos_token_id(ids[_END])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)

    embedding, output = next_token_weights()
    ones = np.ones(_WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}.{name}.weight", np.zeros((_WIDTH, _WIDTH), np.float32))
        for name in ("ffn_gate", "ffn_up"):
            tensor = np.zeros((_FEED_FORWARD, _WIDTH), np.float32)
            writer.add_tensor(f"{block}.{name}.weight", tensor)
        tensor = np.zeros((_WIDTH, _FEED_FORWARD), np.float32)
        writer.add_tensor(f"{block}.ffn_down.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
