"""Typed reads of a client's JSON; a wrong type is a TranslationError that names the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_provider.server.translations.errors import TranslationError

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "a number"),
    (float, "a number"),
    (list, "a list"),
    (dict, "an object"),
)


def as_object(value: object, name: str) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise _wrong(value, name, "an object")
    return value


def as_list(value: object, name: str) -> list[Any]:
    """Return a JSON list."""
    if not isinstance(value, list):
        raise _wrong(value, name, "a list")
    return value


def as_text(value: object, name: str) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise _wrong(value, name, "a string")
    return value


def as_name(value: object, name: str) -> str:
    """Return a string that is not empty."""
    if not as_text(value, name):
        raise TranslationError(name, f"'{name}' is invalid: it is empty.")
    return str(value)


def as_number(value: object, name: str) -> int | float:
    """Return a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, name, "a number")
    return value


def as_integer(value: object, name: str) -> int:
    """Return a whole number; 3.0 is one."""
    number = as_number(value, name)
    if number != number or number in (float("inf"), float("-inf")) or int(number) != number:
        raise TranslationError(name, f"'{name}' is invalid: {number} is no whole number.")
    return int(number)


def as_flag(value: object, name: str) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise _wrong(value, name, "a boolean")
    return value


def as_texts(value: object, name: str) -> list[str]:
    """Return a list of strings."""
    return [as_text(entry, f"{name}.{place}") for place, entry in enumerate(as_list(value, name))]


def objects_in(value: object, name: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield each object of a list with its own name, such as `tools.0`."""
    for place, entry in enumerate(as_list(value, name)):
        yield f"{name}.{place}", as_object(entry, f"{name}.{place}")


def require(body: Mapping[str, Any], *names: str) -> None:
    """Raise a TranslationError for the first of the fields that is missing or null."""
    for name in names:
        if body.get(name) is None:
            raise TranslationError(name, f"'{name}' is missing.")


def _wrong(value: object, name: str, wanted: str) -> TranslationError:
    if value is None:
        return TranslationError(name, f"'{name}' is missing. It must be {wanted}.")
    found = next((words for kind, words in _KINDS if isinstance(value, kind)), "something else")
    return TranslationError(name, f"'{name}' is invalid: {found}. It must be {wanted}.")
