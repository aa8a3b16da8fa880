"""The header that names what the engine ignores."""

from __future__ import annotations

import pytest

from llm_provider.providers.parameters.tables import TABLES
from llm_provider.server.dropped_header import dropped_header


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["user"], b"user"),
        (["parallel_tool_calls", "tools[].type", "user", "text.verbosity", "user"],
         b"parallel_tool_calls, tools[].type, user, text.verbosity"),
        (["a\r\nx-injected: 1", "user", "", "\u00fc", "x" * 101, "a b", "a,b"], b"user"),
    ],
)  # fmt: skip
def test_names_are_listed_once(names: list[str], value: bytes) -> None:
    assert dropped_header(names) == [(b"x-edge-llm-dropped", value)]


@pytest.mark.parametrize("names", [[], ["\n"], [""]])
def test_without_names_there_is_no_header(names: list[str]) -> None:
    assert dropped_header(names) == []


def test_every_name_of_the_tables_is_listed() -> None:
    for tables in TABLES.values():
        for table in tables.values():
            paths = dict.fromkeys(rule.path for rule in table.rules)
            assert dropped_header(paths)[0][1].decode().split(", ") == list(paths)
