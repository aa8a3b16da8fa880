"""Writes chain models: tiny language models that each give one known answer to any question.

A chain is a llama of one layer whose attention and feed-forward weights are zero: what a token's
embedding says goes straight to the output, so each token alone decides the next one. The answer's
tokens form the chain; every other token (whatever a prompt ends with) leads to its beginning. Any
text can be a prompt, since the vocabulary has all bytes. A file is the same, byte for byte, every
time.

`SMOKE` is the one that boards serve; the others are what the tests of the engines ask for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

LAYERS = 1
KV_HEADS = 1
HEAD_SIZE = 64
CONTEXT = 32768
"""Tokens that a model claims to be trained for."""

_WIDTH = KV_HEADS * HEAD_SIZE
_FEED_FORWARD = 64
# After normalisation a state has the length sqrt(_WIDTH) = 8, so the next token's logit is 80 and
# all others' is 0: the same answer at any usual temperature.
_CERTAINTY = 10.0
_UNKNOWN, _BEGIN, _END = "<unk>", "<s>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# How SentencePiece writes a space, and a byte that is a token of its own.
_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# The Hermes way of calling tools, which engines recognise by its template: tools are listed in the
# system's message, a call is JSON between two tags.
_TOOLS_TEMPLATE = (
    "{% if tools %}"
    "{{ '<|system|>You may call functions, listed in <tools></tools>:\\n<tools>' }}"
    "{% for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\\n</tools>\\nCall one as\\n<tool_call>\\n"
    '{"name": <name>, "arguments": <arguments>}\\n</tool_call><|end|>\' }}'
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>\\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}"
    "{{ call['function']['arguments'] | tojson }}"
    "{{ '}\\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Chain:
    """A chain model: its name, the tokens of its answer, its chat template.

    `steps` are spelled as the vocabulary spells tokens (SentencePiece: U+2581 for a space, <0xNN>
    for a byte) and no two are alike, since a token alone decides what follows it. An `endless`
    chain begins again where others stop.
    """

    name: str
    steps: tuple[str, ...]
    template: str = _TEMPLATE
    endless: bool = False

    @property
    def answer(self) -> str:
        """The answer as a client reads it; of an endless chain, one round."""
        text = b""
        for step in self.steps:
            byte = _BYTE.fullmatch(step)
            text += bytes.fromhex(byte[1]) if byte else step.replace(_SPACE, " ").encode()
        return text.decode()

    def vocabulary(self) -> list[tuple[str, gguf.TokenType]]:
        """All tokens and their types, in the order of their ids."""
        control = [(word, gguf.TokenType.CONTROL) for word in (_BEGIN, _END, *_ROLES)]
        byte = [(f"<0x{value:02X}>", gguf.TokenType.BYTE) for value in range(256)]
        # Printable characters of ASCII are tokens too, so a plain prompt is one token a character.
        characters = [_SPACE, *(chr(value) for value in range(0x21, 0x7F))]
        known = {word for word, _ in byte} | set(characters)
        steps = [step for step in self.steps if step not in known]
        normal = [(word, gguf.TokenType.NORMAL) for word in (*characters, *steps)]
        return [(_UNKNOWN, gguf.TokenType.UNKNOWN), *control, *byte, *normal]

    def next_token_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Embedding and output matrices, both float32 of shape (tokens, width).

        State 0 is `before the answer`; state i is `after its i-th token`.
        """
        words = [word for word, _ in self.vocabulary()]
        embedding = np.zeros((len(words), _WIDTH), dtype=np.float32)
        output = np.zeros((len(words), _WIDTH), dtype=np.float32)
        for token, word in enumerate(words):
            state = self.steps.index(word) + 1 if word in self.steps else 0
            embedding[token, state] = 1.0
        after = self.steps[0] if self.endless else _END
        for state, word in enumerate([*self.steps, after]):
            output[words.index(word), state] = _CERTAINTY
        return embedding, output

    def write(self, path: Path) -> None:
        """Write the model as a GGUF file."""
        vocabulary = self.vocabulary()
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name(self.name)
        writer.add_version("1")
        writer.add_description(f"Answers every question with: {self.answer}")
        writer.add_license("Apache-2.0")
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        shape = {
            "context_trained": CONTEXT,
            "embedding": _WIDTH,
            "layers": LAYERS,
            "feed_forward": _FEED_FORWARD,
            "heads": KV_HEADS,
            "kv_heads": KV_HEADS,
            "head_size": HEAD_SIZE,
        }
        describe(writer, shape, vocabulary)
        writer.add_add_space_prefix(False)
        writer.add_chat_template(self.template)

        embedding, output = self.next_token_weights()
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


def describe(
    writer: gguf.GGUFWriter, shape: Mapping[str, int], vocabulary: list[tuple[str, gguf.TokenType]]
) -> None:
    """Write what a llama's header says of its shape (as models.yml has shapes) and its tokens,
    among which are a chain's.
    """
    ids = {word: token for token, (word, _) in enumerate(vocabulary)}
    writer.add_vocab_size(len(vocabulary))
    writer.add_context_length(shape["context_trained"])
    writer.add_embedding_length(shape["embedding"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["feed_forward"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_rope_dimension_count(shape["head_size"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([word for word, _ in vocabulary])
    writer.add_token_scores([0.0] * len(vocabulary))
    writer.add_token_types([kind for _, kind in vocabulary])
    writer.add_unk_token_id(ids[_UNKNOWN])
    writer.add_bos_token_id(ids[_BEGIN])
    writer.add_eos_token_id(ids[_END])
    writer.add_add_bos_token(False)


def words(sentence: str) -> tuple[str, ...]:
    """A sentence as tokens, a word each; all but the first begin with a space."""
    first, *others = sentence.split(" ")
    return (first, *(_SPACE + word for word in others))


def spelled(text: str) -> tuple[str, ...]:
    """A text as tokens of one byte of its UTF-8 each."""
    return tuple(f"<0x{value:02X}>" for value in text.encode())


SMOKE = Chain("smoke", words("All systems are ready: the edge model answers."))

TOOLS = Chain(
    "tools",
    (
        *("<tool_call>", "<0x0A>", '{"name":', f'{_SPACE}"get_weather",', f'{_SPACE}"arguments":'),
        *(f'{_SPACE}{{"city":', f'{_SPACE}"Par', 'is",', f'{_SPACE}"days":', f"{_SPACE}3}}}}"),
        "\n</tool_call>",
    ),
    _TOOLS_TEMPLATE,
)
"""Calls get_weather with {"city": "Paris", "days": 3}, whatever it is asked."""

_FOREIGN = "\u4e16\u754c\U0001f680\u00e9"
UNICODE = Chain(
    "unicode", (*words("Gr\u00fc\u00dfe aus"), _SPACE, *spelled(_FOREIGN), *words("! Ende"))
)
"""Has characters of two, three and four bytes, each byte a token (no two of those are alike)."""

ENDLESS = Chain(
    "endless",
    # Every word has its space before it: the first follows the last.
    words(" one two three four five six seven eight nine ten")[1:],
    endless=True,
)
"""Never stops by itself: an answer is as long as is asked for, each word of it known."""
