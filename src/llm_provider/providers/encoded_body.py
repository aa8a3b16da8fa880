"""Bodies whose fields are JSON already: they reach the engine as the bytes that a client sent.

A provider treats them as any other body: it reads a field, which decodes that field alone, and sets
or removes fields. 20 MiB of messages that nobody reads cost no Python objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from llm_provider.errors import ConfigurationError, LLMError

MOST_VALUES = 100_000
"""A field with more values is not decoded: small values take 25 times their JSON as objects."""
_CHUNK = 64 * 1024
_OPENING = b",[{"
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[,\[{]', re.DOTALL)
_QUOTE = ord('"')


class TooManyValuesError(LLMError):
    """A field that has to be decoded holds more values than memory is meant for."""

    def __init__(self, param: str) -> None:
        super().__init__(f"'{param}' holds more than {MOST_VALUES} values. Send fewer.")
        self.param = param


class EncodedBody(MutableMapping[str, Any]):
    """A JSON object by its fields: `encoded` as JSON, each field decoded when it is read.

    Each reading decodes anew, so that nothing is kept: a value that was read and then changed has
    to be set. Raises TooManyValuesError where a field holds more than MOST_VALUES. The JSON is
    not copied, and not checked.
    """

    def __init__(self, encoded: Mapping[str, memoryview | bytes]) -> None:
        self._encoded: dict[str, memoryview | bytes] = dict(encoded)

    def __getitem__(self, name: str) -> Any:
        return decode_value(name, self._encoded[name])

    def __setitem__(self, name: str, value: Any) -> None:
        self._encoded[name] = encode_value(value)

    def __delitem__(self, name: str) -> None:
        del self._encoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)

    def __contains__(self, name: object) -> bool:
        return name in self._encoded  # without decoding it

    def size_of(self, name: str) -> int:
        """Return the bytes of a field's JSON."""
        return len(self._encoded[name])

    def copy(self) -> EncodedBody:
        """Return a body to change, which shares the JSON of its fields with this one."""
        return EncodedBody(self._encoded)

    def encode(self) -> bytes:
        """Return the JSON of the whole body."""
        pieces: list[bytes | memoryview] = []
        for name, value in self._encoded.items():
            pieces += (b"," if pieces else b"{", encode_value(name), b":", value)
        pieces.append(b"}" if pieces else b"{}")
        return b"".join(pieces)


def editable(body: Mapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a copy of a body, whose fields can be set and removed."""
    return body.copy() if isinstance(body, EncodedBody) else dict(body)


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Return a body's JSON. ASCII escapes carry any text, lone surrogates included.

    Raises ConfigurationError for what JSON has no form for.
    """
    return body.encode() if isinstance(body, EncodedBody) else encode_value(body)


def encode_value(value: Any) -> bytes:
    """Return a value's JSON. Raises ConfigurationError for what JSON has no form for."""
    try:
        return json.dumps(value, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"The body of the request is invalid: {error}.") from error


def decode_value(name: str, value: memoryview | bytes) -> Any:
    """Return the value of the field `name`. Raises TooManyValuesError."""
    if count_values(value, MOST_VALUES) > MOST_VALUES:
        raise TooManyValuesError(name)
    return json.loads(str(value, "utf-8"))


def count_values(data: memoryview | bytes, most: int) -> int:
    """Return how many values a JSON text holds, at least: more than `most` where it has more.

    Its commas and brackets are counted. Those within strings count too, as long as all together
    are no more than `most`.
    """
    view = memoryview(data)
    bound = 1
    for start in range(0, len(view), _CHUNK):
        piece = bytes(view[start : start + _CHUNK])
        bound += sum(piece.count(_OPENING[at : at + 1]) for at in range(len(_OPENING)))
    if bound <= most:
        return bound
    count = 1
    for found in _STRUCTURE.finditer(view):
        count += view[found.start()] != _QUOTE
        if count > most:
            break
    return count
