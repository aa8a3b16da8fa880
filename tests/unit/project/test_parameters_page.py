"""docs/parameters.md is generated from the tables of parameters."""

from __future__ import annotations

import re

from llm_provider.providers.parameters.extensions import ignored_extensions
from llm_provider.providers.parameters.openai_fields import FIELDS
from llm_provider.providers.parameters.tables import TABLES
from scripts.parameters import COMMAND, ENGINES, PAGE, page, problem

SECTIONS = {
    title: text for title, _, text in (part.partition("\n") for part in page().split("\n## "))
}


def rows(title: str) -> dict[str, list[str]]:
    """The cells of a section's first table, by parameter."""
    table = SECTIONS[title].partition("Further parameters")[0]
    lines = re.findall(r"^\| `(.+?)` \| (.*) \|$", table, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in lines}


def test_the_page_is_that_of_the_tables() -> None:
    assert problem(PAGE.read_text()) == ""


def test_an_old_page_is_found_with_the_command() -> None:
    old = page().replace("`metadata`", "`meta`")
    assert problem(old) == (
        "docs/parameters.md is out of date: the tables in src/llm_provider/providers/parameters/ "
        f"differ. Run `{COMMAND}`."
    )


def test_the_page_has_every_field_and_every_rule_for_every_engine() -> None:
    assert set(ENGINES) == set(TABLES)
    beyond = {rule.path for rule in ignored_extensions("")}
    for route, fields in FIELDS.items():
        found = rows(route)
        paths = {rule.path for engine in ENGINES for rule in TABLES[engine][route].rules} - beyond
        assert set(found) == fields | paths
        for name, cells in found.items():
            for cell in cells[: len(ENGINES)]:
                kind = re.match(r"yes$|dropped|\*\*refused\*\*|see its members$", cell)
                assert kind, (route, name, cell)
    assert set(rows("Parameters beyond OpenAI's API")) == beyond


def test_cells_say_what_the_rules_say() -> None:
    chat = rows("/v1/chat/completions")
    assert chat["parallel_tool_calls"][:3] == ["yes", "dropped, except `true`", "yes"]
    assert chat["n"][:3] == ["yes", "**refused**, except `1`", "yes"]
    assert chat["top_logprobs"][1] == "**refused**, except `0`, without `logprobs`"
    assert rows("/v1/completions")["top_p"][1:] == ["**refused**: `0`", "yes", "0 is read as 1"]
    responses = rows("/v1/responses")
    assert responses["stream_options"][:3] == ["see its members"] * 3
    assert responses["truncation"][3] == (
        "llama.cpp: a conversation that is too long is refused; "
        "Ollama: the oldest messages of a long conversation go"
    )


def test_an_engine_s_own_parameters_are_listed() -> None:
    further = page().partition("Further parameters")[2]
    (line,) = re.findall(r"^\| /v1/embeddings \| llama.cpp \| (.*) \|$", further, re.MULTILINE)
    assert line == "`content`, `embd_normalize`"
