"""docs/variables.md is generated from the schema, and README.md names the variables for a start."""

from __future__ import annotations

import re

from edge_fleet.settings import VARIABLES
from scripts.variables import COMMAND, PAGE, page, problem
from tests.unit.edge_fleet.conftest import ROOT


def test_the_page_is_that_of_the_schema() -> None:
    assert problem(PAGE.read_text()) == ""


def test_an_old_page_is_found_with_the_command() -> None:
    old = page().replace("`llm_parallel`", "`llm_slots`")
    assert problem(old).endswith(f"Run `{COMMAND}`.")


def test_the_page_has_every_variable_with_its_parts() -> None:
    assert re.findall(r"^### `(\w+)`$", page(), re.MULTILINE) == list(VARIABLES)
    for section in page().split("\n### ")[1:]:
        assert [line[: line.index(":")] for line in section.splitlines() if line[:2] == "- "] == [
            "- Value", "- Default", "- Example"
        ]  # fmt: skip


def test_the_readme_names_ten_variables_and_links_to_the_page() -> None:
    text = (ROOT / "README.md").read_text()
    text = text[text.index("## Variables") : text.index("## What a host gets")]
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert len(named) == 10
    assert set(named) <= set(VARIABLES)
    assert "(docs/variables.md)" in text
