"""Facts as a host prints them: checked before they are used.

A host is not trusted. Its facts decide about that host alone, and what of them is shown is plain
text. What is deeper than the structure here is judged by those who use it: a plan that cannot be
made of the facts is no plan.
"""

from __future__ import annotations

import json
from typing import Any

MOST_BYTES = 4 * 1024 * 1024
"""Facts of a host with a hundred models and a long history are a tenth of this."""
_MOST_DEPTH = 24
_MOST_TEXT = 65536
_SHAPE: dict[str, type] = {
    "board": dict,
    "docker": dict,
    "addresses": list,
    "ports": dict,
    "deployment": dict,
    "models": dict,
    "unfinished": dict,
}
# In texts of several lines, such as the reason of a failed change.
_ALLOWED = frozenset("\n\t")


def parse_facts(printed: str) -> dict[str, Any]:
    """Return the facts in the output of the program's command `state`.

    Lines before them, such as a banner, are left out. Raises ValueError with a phrase that says
    what is wrong, without anything that the host printed.
    """
    if len(printed) > MOST_BYTES:
        raise ValueError(f"it printed more than {MOST_BYTES} bytes")
    line = next((each for each in reversed(printed.splitlines()) if each.startswith("{")), "")
    try:
        facts = json.loads(line, parse_constant=_refuse_constant)
    except (RecursionError, ValueError):
        raise ValueError("it printed no facts") from None
    if not isinstance(facts, dict) or set(facts) != set(_SHAPE):
        raise ValueError("it printed facts of another version")
    for name, kind in _SHAPE.items():
        if not isinstance(facts[name], kind):
            raise ValueError(f"its facts have no {kind.__name__} in {name}")
    _check(facts, 0)
    return facts


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check(value: object, depth: int) -> None:
    """Raise ValueError for a value that is nested too deeply, too long, or not plain text."""
    if depth > _MOST_DEPTH:
        raise ValueError("its facts are nested too deeply")
    if isinstance(value, dict):
        for name, each in value.items():
            _check(name, depth + 1)
            _check(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, depth + 1)
    elif isinstance(value, str):
        if len(value) > _MOST_TEXT:
            raise ValueError(f"its facts have a text of more than {_MOST_TEXT} characters")
        if not value.isprintable() and not all(c.isprintable() or c in _ALLOWED for c in value):
            raise ValueError("its facts have a text with control characters")
