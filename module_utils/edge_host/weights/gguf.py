"""What a GGUF file says of itself, read off its header: compared with what the catalogue says.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the header is read: some
kilobytes, and of a large vocabulary some megabytes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Mapping, Optional

MAGIC = b"GGUF"
# Type of a value -> how struct reads it. 8 is text, 9 is a list.
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_TEXT, _LIST = 8, 9
# No header that can be meant has more of anything: a broken one must not be read for ever.
_MOST = 1 << 24
# general.file_type -> the name of the quantization (enum llama_ftype of llama.cpp).
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4",
}  # fmt: skip


class NotGGUF(ValueError):
    """The file is no GGUF, or a broken one; a sentence without the file's name."""


class _Reader:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def number(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        return struct.unpack("<" + form, self.take(size))[0]

    def take(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) != size:
            raise NotGGUF("its header breaks off")
        return found

    def text(self) -> str:
        size = self.count()
        return self.take(size).decode("utf-8", "replace")

    def count(self) -> int:
        count = int(self.number("Q"))
        if count > _MOST:
            raise NotGGUF(f"its header tells of {count} items")
        return count

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            kind, count = self.number("I"), self.count()
            if kind in _NUMBERS:
                return list(struct.unpack(f"<{count}{_NUMBERS[kind]}", self._block(kind, count)))
            if kind != _TEXT:
                raise NotGGUF(f"its header has a list of type {kind}")
            return [self.text() for _ in range(count)]
        if kind not in _NUMBERS:
            raise NotGGUF(f"its header has a value of type {kind}")
        return self.number(_NUMBERS[kind])

    def _block(self, kind: int, count: int) -> bytes:
        return self.take(struct.calcsize("<" + _NUMBERS[kind]) * count)


def read_fields(path: Path) -> Dict[str, Any]:
    """All key-value pairs of a GGUF file's header. Raises NotGGUF, OSError."""
    with path.open("rb") as stream:
        reader = _Reader(stream)
        magic = stream.read(4)
        if magic != MAGIC:
            raise NotGGUF(f"it begins with {magic!r} and not with {MAGIC!r}")
        version = reader.number("I")
        if version not in (2, 3):
            raise NotGGUF(f"its version is {version}; known are 2 and 3")
        reader.count()  # tensors
        fields: Dict[str, Any] = {}
        for _ in range(reader.count()):
            name = reader.text()
            fields[name] = reader.value(reader.number("I"))
        return fields


def describe(fields: Mapping[str, Any]) -> Dict[str, Any]:
    """The shape that a header tells, by the names that models.yml uses; what it does not tell is
    left out.

    family, quantization, layers, embedding, heads, kv_heads, head_size, feed_forward, vocabulary,
    context_trained. A number that differs from layer to layer is given as its largest.
    """
    family = str(fields.get("general.architecture", ""))

    def told(name: str) -> Optional[int]:
        value = fields.get(f"{family}.{name}")
        several = value if isinstance(value, list) else [value]
        numbers = [each for each in map(_whole, several) if each is not None]
        return max(numbers, default=None)

    kind = _whole(fields.get("general.file_type"))
    heads = told("attention.head_count")
    embedding = told("embedding_length")
    tokens = fields.get("tokenizer.ggml.tokens")
    head_size = told("attention.key_length")
    if head_size is None and heads and embedding:
        head_size = embedding // heads
    found = {
        "family": family or None,
        "quantization": FILE_TYPES.get(kind) if kind is not None else None,
        "layers": told("block_count"),
        "embedding": embedding,
        "heads": heads,
        "kv_heads": told("attention.head_count_kv") or heads,
        "head_size": head_size,
        "feed_forward": told("feed_forward_length"),
        "vocabulary": len(tokens) if isinstance(tokens, list) else told("vocab_size"),
        "context_trained": told("context_length"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _whole(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> List[str]:
    """What the catalogue says and the file contradicts, a phrase each.

    What only one of them tells is no contradiction, nor is a catalogue that allows less context.
    """
    return [
        f"{name} {value} where the file has {found[name]}"
        for name, value in expected.items()
        if name in found
        and found[name] != value
        and not (name == "context_trained" and found[name] > value)
    ]
