from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import (
    as_flag,
    as_integer,
    as_list,
    as_name,
    as_number,
    as_object,
    as_text,
    as_texts,
    objects_in,
    require,
)


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (as_object, True, "'f' is invalid: a boolean. It must be an object."),
        (as_list, "a", "'f' is invalid: a string. It must be a list."),
        (as_text, 1, "'f' is invalid: a number. It must be a string."),
        (as_number, 1.5 + 0j, "'f' is invalid: something else. It must be a number."),
        (as_number, [], "'f' is invalid: a list. It must be a number."),
        (as_number, True, "'f' is invalid: a boolean. It must be a number."),
        (as_flag, {}, "'f' is invalid: an object. It must be a boolean."),
        (as_text, 1.5, "'f' is invalid: a number. It must be a string."),
        (as_text, None, "'f' is missing. It must be a string."),
        (as_name, "", "'f' is invalid: it is empty."),
        (as_integer, 0.5, "'f' is invalid: 0.5 is no whole number."),
        (as_integer, float("nan"), "'f' is invalid: nan is no whole number."),
    ],
)
def test_a_wrong_value_is_described(
    read: Callable[[object, str], Any], value: object, words: str
) -> None:
    with pytest.raises(TranslationError) as refused:
        read(value, "f")
    assert str(refused.value) == words
    assert refused.value.param == "f"


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (as_object, {"a": 1}, {"a": 1}),
        (as_list, [1], [1]),
        (as_text, "", ""),
        (as_name, "a", "a"),
        (as_number, 0.5, 0.5),
        (as_integer, 3.0, 3),
        (as_flag, False, False),
        (as_texts, ["a", ""], ["a", ""]),
    ],
)
def test_a_right_value_is_returned(
    read: Callable[[object, str], Any], value: object, found: object
) -> None:
    assert read(value, "f") == found


def test_objects_of_a_list_have_names() -> None:
    assert list(objects_in([{}, {"a": 1}], "f")) == [("f.0", {}), ("f.1", {"a": 1})]


def test_the_first_field_that_is_missing_is_named() -> None:
    require({"a": 0, "b": ""}, "a", "b")
    with pytest.raises(TranslationError, match=r"^'b' is missing\.$") as refused:
        require({"a": 0, "b": None}, "a", "b", "c")
    assert refused.value.param == "b"
