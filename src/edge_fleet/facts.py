"""What a host says of itself is checked before anything uses it.

A board can be broken, or in the hands of somebody else. What its modules return is validated here,
once, by the schema of `facts_schema`, so that a wrong fact refuses that host alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from edge_fleet.facts_schema import MOST_ITEMS, Result, State
from edge_fleet.setting_types import plain
from edge_fleet.text import MOST_TEXT, clean_text

MOST_BYTES = 8 << 20
"""Bytes of all that a host says in one result, as JSON: some hundred times what a board has."""
_SHOWN = 60
_REMEDY = (
    "Look for the cause on the host, which may be broken or not yours alone, and run this again"
)
# What Ansible adds where a module did not run, or where a host cannot be reached, is among them.
_EVERY_RESULT = {
    *("changed", "failed", "msg", "diff", "invocation", "warnings", "deprecations", "skipped"),
    *("exception", "rc", "module_stdout", "module_stderr", "unreachable"),
}
_FOUND_INTERPRETER = "discovered_interpreter_"


class FactsError(Exception):
    """What is wrong with the facts of a host; a sentence or two."""


_STATE: TypeAdapter[Any] = TypeAdapter(State)
_RESULT: TypeAdapter[Any] = TypeAdapter(Result)


def checked_state(found: object) -> dict[str, Any]:
    """The facts of a host as the module host_info returned them. Raises FactsError."""
    return _checked(_STATE, found, "facts of the host")


def kept_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """What every result has for Ansible, of a module's result; not what only some modules return.

    Of the facts that Ansible would keep, those stay that Ansible itself has added.
    """
    # Ansible takes keys of its own out of what a module returns, and adds them afterwards.
    kept = {
        name: value
        for name, value in result.items()
        if name in _EVERY_RESULT or name.startswith("_ansible_")
    }
    facts = result.get("ansible_facts")
    if isinstance(facts, dict):
        # Which Python the host has: without it, Ansible looks for it in each task.
        found = {
            name: value for name, value in facts.items() if name.startswith(_FOUND_INTERPRETER)
        }
        if found:
            kept["ansible_facts"] = found
    return kept


def checked_result(found: object) -> dict[str, Any]:
    """The result of a change as the module release returned it. Raises FactsError."""
    return _checked(_RESULT, found, "result of the change")


def facts_problem(found: object) -> str:
    """What is wrong with facts that a file has, and what to do; empty where nothing is."""
    try:
        checked_state(plain(found))
    except FactsError as error:
        return str(error)
    return ""


def _checked(schema: TypeAdapter[Any], found: object, subject: str) -> dict[str, Any]:
    """What is found, by a schema. `subject` is what it is, for messages."""
    try:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False, check_circular=False)
    except (RecursionError, TypeError, ValueError) as error:
        shown = clean_text(str(error), _SHOWN)
        raise FactsError(f"The {subject} are invalid: {shown}. {_REMEDY}.") from None
    if len(text) > MOST_BYTES:
        raise FactsError(
            f"The {subject} do not fit: {len(text)} characters, and {MOST_BYTES} is the most."
            f" {_REMEDY}."
        )
    try:
        # Names of files can have bytes that are no text.
        checked: dict[str, Any] = schema.validate_json(text.encode(errors="replace"))
    except ValidationError as error:
        raise FactsError(_sentence(error, subject)) from None
    return checked


def _sentence(error: ValidationError, subject: str) -> str:
    """The first thing that is wrong, and how many more are."""
    first = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    place = [clean_text(str(each), _SHOWN) for each in first["loc"] if each != "[key]"]
    if first["type"] == "lacking":
        place.append(first["ctx"]["path"])
    where = ".".join(place) or "the whole"
    if first["type"] in ("missing", "lacking"):
        return f"{where} is missing in the {subject}{more}. {_REMEDY}."
    return f"{where} is invalid in the {subject}: {_found(first)}{more}. {_REMEDY}."


_WANTED = {
    "string_pattern_mismatch": "a text of another form, without control characters,",
    "string_too_long": f"a text of at most {MOST_TEXT} characters",
    "too_long": f"at most {MOST_ITEMS} items",
    "dict_type": "a dictionary",
    "list_type": "a list",
}


def _found(error: ErrorDetails) -> str:
    """What was found, and what was expected."""
    found = error["input"]
    if isinstance(found, dict | list):
        shown = f"a {type(found).__name__} of {len(found)}"
    else:
        shown = "null" if found is None else clean_text(repr(found)[:1000], _SHOWN)
    wanted = _WANTED.get(error["type"]) or error["msg"].removeprefix("Input should be ")
    return f"{shown}, where {wanted} is expected"
