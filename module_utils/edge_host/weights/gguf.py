"""Reads the header of a GGUF file, and compares the model's shape with the catalogue.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the header is read: some
kilobytes, or some megabytes where the vocabulary is large.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Mapping, Optional

MAGIC = b"GGUF"
# Type of a value -> its format for struct. 8 is text, 9 is a list.
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_TEXT, _LIST = 8, 9
# A limit for strings, lists and pairs: the count in a damaged header may be huge.
_MAX_COUNT = 1 << 24
# general.file_type -> the name of the quantization (enum llama_ftype of llama.cpp).
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4",
}  # fmt: skip


class InvalidGGUF(ValueError):
    """The file is no GGUF file, or is damaged; the text is a clause without the file's name."""


class _Reader:
    """Reads typed values from the stream of a header."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def number(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        return struct.unpack("<" + form, self.take(size))[0]

    def take(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) != size:
            raise InvalidGGUF("its header is truncated")
        return found

    def text(self) -> str:
        size = self.count()
        return self.take(size).decode("utf-8", "replace")

    def count(self) -> int:
        count = int(self.number("Q"))
        if count > _MAX_COUNT:
            raise InvalidGGUF(f"its header announces {count} items")
        return count

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            kind, count = self.number("I"), self.count()
            if kind in _NUMBERS:
                return list(struct.unpack(f"<{count}{_NUMBERS[kind]}", self._block(kind, count)))
            if kind != _TEXT:
                raise InvalidGGUF(f"its header has a list of the unknown type {kind}")
            return [self.text() for _ in range(count)]
        if kind not in _NUMBERS:
            raise InvalidGGUF(f"its header has a value of the unknown type {kind}")
        return self.number(_NUMBERS[kind])

    def _block(self, kind: int, count: int) -> bytes:
        return self.take(struct.calcsize("<" + _NUMBERS[kind]) * count)


def read_header(path: Path) -> Dict[str, Any]:
    """Read all key-value pairs of a GGUF file's header. Raises InvalidGGUF, OSError."""
    with path.open("rb") as stream:
        reader = _Reader(stream)
        magic = stream.read(4)
        if magic != MAGIC:
            raise InvalidGGUF(f"it begins with {magic!r}, not with {MAGIC!r}")
        version = reader.number("I")
        if version not in (2, 3):
            raise InvalidGGUF(f"its GGUF version is {version}, and versions 2 and 3 are supported")
        reader.count()  # tensors
        fields: Dict[str, Any] = {}
        for _ in range(reader.count()):
            name = reader.text()
            fields[name] = reader.value(reader.number("I"))
        return fields


def read_shape(fields: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the model's shape from the header, by the names that models.yml uses.

    Keys: family, quantization, layers, embedding, heads, kv_heads, head_size, feed_forward,
    vocabulary, context_trained; those that the header lacks are left out. Where a number differs
    between layers, the largest counts.
    """
    family = str(fields.get("general.architecture", ""))

    def largest(name: str) -> Optional[int]:
        value = fields.get(f"{family}.{name}")
        values = value if isinstance(value, list) else [value]
        numbers = [each for each in map(_as_integer, values) if each is not None]
        return max(numbers, default=None)

    kind = _as_integer(fields.get("general.file_type"))
    heads = largest("attention.head_count")
    embedding = largest("embedding_length")
    tokens = fields.get("tokenizer.ggml.tokens")
    head_size = largest("attention.key_length")
    if head_size is None and heads and embedding:
        head_size = embedding // heads
    found = {
        "family": family or None,
        "quantization": FILE_TYPES.get(kind) if kind is not None else None,
        "layers": largest("block_count"),
        "embedding": embedding,
        "heads": heads,
        "kv_heads": largest("attention.head_count_kv") or heads,
        "head_size": head_size,
        "feed_forward": largest("feed_forward_length"),
        "vocabulary": len(tokens) if isinstance(tokens, list) else largest("vocab_size"),
        "context_trained": largest("context_length"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _as_integer(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def compare_shapes(expected: Mapping[str, Any], found: Mapping[str, Any]) -> List[str]:
    """Return a phrase for each value in which the catalogue (`expected`) contradicts the file.

    A value that one of them lacks is no contradiction, nor is a shorter context in the catalogue.
    """
    return [
        f"{name} is {value} in models.yml and {found[name]} in the file"
        for name, value in expected.items()
        if name in found
        and found[name] != value
        and not (name == "context_trained" and found[name] > value)
    ]
