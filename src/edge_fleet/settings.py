"""The llm_* variables of a host: names, types and bounds."""

from __future__ import annotations

import re
from typing import Any

from edge_fleet.text import Problem, did_you_mean, join_names

_KEY_RULE = "accepted are 16 and more of letters, digits and . _ ~ + / = -"


def _is_key(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,}", value))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9._:/-]{1,128}", value))


def _is_source(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"https?://[^\s@]+|/\S.*", value))


def _is_batch(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value > 0
    return isinstance(value, str) and bool(re.fullmatch(r"([1-9]\d?|100)%|[1-9]\d*", value))


def check_settings(
    given: dict[str, Any], schema: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[Problem]]:
    """Values of all settings, defaults filled in, and a sentence for each that cannot be.

    `given` holds the host's llm_* variables, `schema` the table of settings.yml. Whole numbers
    may come as text (an INI inventory and `-e a=b` have nothing else).
    """
    problems: list[Problem] = []
    values = {name: rule["default"] for name, rule in schema.items()}
    for name, value in sorted(given.items()):
        if name not in schema:
            problems.append(
                f"{name} is not a variable of this project;{did_you_mean(name, list(schema))}"
                f" Accepted are: {join_names(list(schema))}."
            )
            continue
        if value is None or value == "":
            continue
        rule = schema[name]
        kind = rule["type"]
        if kind == "int":
            if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()):
                value = int(value)
            low, high = rule.get("minimum"), rule.get("maximum")
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or (low is not None and value < low)
                or (high is not None and value > high)
            ):
                span = f"from {low}" + (f" to {high}" if high is not None else " up")
                problems.append(f"{name} is {value!r}; accepted is a whole number {span}.")
                continue
        elif kind == "bool":
            if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
                value = value.lower() in ("true", "yes")
            if not isinstance(value, bool):
                problems.append(f"{name} is {value!r}; accepted is true or false.")
                continue
        elif kind == "switch":
            # YAML reads on and off as true and false.
            if isinstance(value, bool):
                value = "on" if value else "off"
            if value not in ("auto", "on", "off"):
                problems.append(f"{name} is {value!r}; accepted are: auto, on, off.")
                continue
        elif kind == "image":
            texts = list(value.values()) if isinstance(value, dict) else [value]
            if not texts or not all(isinstance(text, str) and text for text in texts):
                problems.append(
                    f"{name} is {value!r}; accepted is an image, or a mapping of provider to image."
                )
                continue
        elif kind == "secret":
            if not _is_key(value):
                problems.append(f"{name} is too short or has other characters; {_KEY_RULE}")
                continue
        elif kind == "secrets":
            if not isinstance(value, list) or not all(_is_key(each) for each in value):
                problems.append(f"{name} is not a list of keys; of each, {_KEY_RULE}")
                continue
        elif kind == "names":
            if not isinstance(value, list) or not all(_is_name(each) for each in value):
                problems.append(
                    f"{name} is {value!r}; accepted is a list of names, each of letters, digits and"
                    " . _ : / -"
                )
                continue
        elif kind == "source":
            if not _is_source(value):
                # A password may be in it.
                told = "one with a user" if "@" in str(value) else repr(value)
                problems.append(
                    f"{name} is {told}; accepted is an address (https://HOST/PATH,"
                    " without a user or a password), or a folder of the control machine (/PATH)."
                )
                continue
        elif kind == "proxy":
            if not isinstance(value, str) or not re.fullmatch(r"https?://\S+", value):
                problems.append(
                    f"{name} is none that can be used; accepted is http://[USER:PASSWORD@]HOST:PORT."
                )
                continue
        elif kind == "batches":
            if not isinstance(value, list) or not value or not all(map(_is_batch, value)):
                problems.append(
                    f"{name} is {value!r}; accepted is a list of whole numbers from 1 up, and of"
                    " shares such as 25%."
                )
                continue
        elif not isinstance(value, str):
            problems.append(f"{name} is {value!r}; accepted is text.")
            continue
        if "choices" in rule and value not in rule["choices"]:
            problems.append(
                f"{name} is {value!r};{did_you_mean(str(value), rule['choices'])}"
                f" Accepted are: {join_names(rule['choices'])}."
            )
            continue
        values[name] = value
    return values, problems
