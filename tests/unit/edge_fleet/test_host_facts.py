"""What a host prints is checked before it is used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_fleet.host_facts import MOST_BYTES, parse_facts

from .conftest import JETSON, change

FACTS: dict[str, Any] = JETSON | {"addresses": ["192.0.2.1"]}


def nested(depth: int) -> dict[str, Any]:
    return {"x": nested(depth - 1)} if depth else {}


def test_facts_below_a_banner() -> None:
    assert parse_facts(f"Welcome!\n{json.dumps(FACTS)}\n") == FACTS


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("", "it printed no facts"),
        ("{", "it printed no facts"),
        ("[1]", "it printed no facts"),
        ('{"board": NaN}', "it printed no facts"),
        ("{" + '"a":{' * 5000, "it printed no facts"),
        ('{"board": {}}', "it printed facts of another version"),
        (json.dumps(FACTS | {"more": 1}), "it printed facts of another version"),
        (json.dumps(FACTS | {"board": []}), "its facts have no dict in board"),
        (json.dumps(FACTS | {"addresses": {}}), "its facts have no list in addresses"),
        (json.dumps(FACTS | {"models": nested(30)}), "its facts are nested too deeply"),
        (
            json.dumps(change(FACTS, "board.model", "x" * 70000)),
            "its facts have a text of more than 65536 characters",
        ),
        (
            json.dumps(change(FACTS, "board.model", "Pi\x1b[2J")),
            "its facts have a text with control characters",
        ),
        (
            json.dumps(change(FACTS, "models", {"a\x07": {}})),
            "its facts have a text with control characters",
        ),
        ("x" * (MOST_BYTES + 1), f"it printed more than {MOST_BYTES} bytes"),
    ],
)
def test_what_is_no_facts(printed: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        parse_facts(printed)
