"""The top-level fields of a request's body, with their values left as they were sent.

A chat API that passes a body on needs to know a few of its fields. The others, such as 20 MiB of
messages, stay bytes: as Python objects they can take 25 times their size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from llm_provider.providers.encoded_body import MOST_VALUES, EncodedBody, count_values
from llm_provider.server.json_text import find_invalid_utf8, number_problem

MOST_FIELDS = 256
"""A body with more top-level fields is refused; the APIs that are served know fewer than 100."""
MOST_SMALL_BYTES = 4096
"""The largest value that is decoded: names, numbers and options, never messages."""
_QUOTE = ord('"')
_BRACKET = ord("[")
_DIGITS = b"-0123456789"
_NUMBERS = re.compile(rb"\[\s*[-0-9]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_EMPTY_LIST = re.compile(rb"\[\s*[^\s\]]")
_LIST_OF_OBJECTS = re.compile(rb"\[\s*\{")
_MAX_TOKENS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class FieldError(ValueError):
    """A body, or a field of it, is invalid. `param` is the field, None for the body as a whole."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class _Name(str):
    """A field's name: a type of its own, for which msgspec calls a function."""

    __slots__ = ()


class Fields:
    """The body of a request. Values are decoded when asked for, and only small ones."""

    def __init__(self, values: Mapping[str, Raw]) -> None:
        self._values = dict(values)

    @classmethod
    def parse(cls, data: bytes | bytearray) -> Fields:
        """Read a body. Raises FieldError for what is no JSON object, or holds what JSON cannot.

        The values refer to `data`, which stays in memory as long as they do.
        """
        if data.startswith(b"\xef\xbb\xbf"):
            raise FieldError("The body starts with a byte order mark. Send UTF-8 without it.")
        if (position := find_invalid_utf8(data)) is not None:
            raise FieldError(f"The body is not UTF-8: byte {position} is invalid.")
        values = _decode(data)
        if problem := number_problem(data):
            raise FieldError(f"The body is not JSON: {problem}.")
        return cls(values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> tuple[str, ...]:
        """The fields, in the order in which they were sent."""
        return tuple(self._values)

    def raw(self, name: str) -> memoryview | None:
        """Return a field's value as it was sent, without a copy; None where it is missing."""
        value = self._values.get(name)
        return None if value is None else memoryview(value)

    def small(self, name: str) -> Any:
        """Return a field's value, decoded; None where it is missing or null.

        Raises FieldError where it is larger than MOST_SMALL_BYTES.
        """
        value = self.raw(name)
        if value is None:
            return None
        if len(value) > MOST_SMALL_BYTES:
            raise FieldError(
                f"'{name}' has {len(value)} bytes; at most {MOST_SMALL_BYTES} are accepted.", name
            )
        try:
            return msgspec.json.decode(value)
        except (RecursionError, msgspec.MsgspecError) as error:
            raise FieldError(f"'{name}' cannot be decoded: {error}.", name) from error

    @property
    def model(self) -> str | None:
        """The model that is asked for."""
        model = self.small("model")
        if model is not None and not isinstance(model, str):
            raise FieldError("'model' must be a string.", "model")
        return model

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        stream = self.small("stream")
        if stream is not None and not isinstance(stream, bool):
            raise FieldError("'stream' must be true or false.", "stream")
        return bool(stream)

    @property
    def stream_options(self) -> dict[str, Any] | None:
        """The options of a stream; None where they are no object, and the engine's to refuse."""
        options = self.small("stream_options")
        if options is None:
            return {}
        return options if isinstance(options, dict) else None

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of an answer, by any of the names that the APIs have for it."""
        for name in _MAX_TOKENS:
            most = self.small(name)
            if isinstance(most, int) and not isinstance(most, bool) and most > 0:
                return most
        return None

    def is_text(self, name: str) -> bool:
        """Whether the field `name` is a text, which may be empty."""
        value = self.raw(name)
        return value is not None and value[0] == _QUOTE

    def require_text(self, name: str) -> None:
        """Raise FieldError where `name` is no text, or an empty one."""
        value = self.raw(name)
        if value is None or value[0] != _QUOTE or len(value) == 2:
            raise FieldError(f"'{name}' must be a text.", name)

    def require_objects(self, name: str) -> None:
        """Raise FieldError where `name` is no list that starts with an object.

        Only the first is looked at: the engine, which decodes all of them, refuses the others.
        """
        value = self.raw(name)
        if value is None or not _LIST_OF_OBJECTS.match(value):
            raise FieldError(f"'{name}' must be a list of at least one message.", name)

    def require_text_or_list(self, name: str) -> None:
        """Raise FieldError where `name` is neither a text nor a list, or empty."""
        value = self.raw(name)
        usable = value is not None and (
            (value[0] == _QUOTE and len(value) > 2) or _NOT_EMPTY_LIST.match(value)
        )
        if not usable:
            raise FieldError(f"'{name}' must be a text or a list.", name)

    def count(self, name: str) -> int:
        """Return how many prompts the field `name` holds: as many as a list has values, else one.

        A list with a number in it is one prompt, as tokens. Above MOST_VALUES it is at least so
        many.
        """
        value = self.raw(name)
        if value is None or value[0] != _BRACKET:
            return 1
        if count_values(value, MOST_VALUES) > MOST_VALUES:
            # What begins with a number has one prompt; others have more than any engine has slots.
            return 1 if _NUMBERS.match(value) else MOST_VALUES
        values = [memoryview(each)[0] for each in msgspec.json.decode(value, type=list[Raw])]
        return 1 if any(first in _DIGITS for first in values) else max(1, len(values))

    def body(self) -> EncodedBody:
        """Return the body for an engine: all fields, as they were sent and in their order."""
        return EncodedBody({name: memoryview(value) for name, value in self._values.items()})


def _decode(data: bytes | bytearray) -> dict[str, Raw]:
    """Return the top-level fields. Raises FieldError."""
    seen: set[str] = set()
    problem: FieldError | None = None

    def name_of(_: type, name: str) -> _Name:
        nonlocal problem
        # Called for each name as it is reached, so that a body of a million names ends early.
        if name in seen:
            problem = FieldError(f"The body has the field {name[:100]!r} twice.", name[:100])
        elif len(seen) == MOST_FIELDS:
            problem = FieldError(f"The body has more than {MOST_FIELDS} top-level fields.")
        if problem is not None:
            raise problem
        seen.add(name)
        return _Name(name)

    try:
        decoder = msgspec.json.Decoder(dict[_Name, Raw], dec_hook=name_of)
        return {str(name): value for name, value in decoder.decode(data).items()}
    except RecursionError as error:
        raise FieldError("The body is nested too deeply.") from error
    except msgspec.ValidationError as error:
        raise problem or FieldError("The body must be a JSON object.") from error
    except msgspec.DecodeError as error:
        raise FieldError(f"The body is not JSON: {_explained(str(error), data)}.") from error


def _explained(message: str, data: bytes | bytearray) -> str:
    """Return a decoder's message, in other words where it does not say what is wrong."""
    problem = message.removeprefix("JSON is malformed: ")
    if problem == "Input data was truncated":
        # The decoder looks for the second half of a pair of surrogates before the end.
        tail = bytes(data[-16:])
        if _SURROGATE.search(tail):
            return "half a pair of surrogates (\\ud800 to \\udfff)"
        return "it ends too early" if data else "it is empty"
    if "surrogate" in problem or "hex escape" in problem:
        return f"half a pair of surrogates (\\ud800 to \\udfff): {problem}"
    return problem
