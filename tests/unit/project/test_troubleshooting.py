"""docs/troubleshooting.md quotes messages as the code has them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/troubleshooting.md"
ANYTHING = "\0"
"""What stands for a value in a message."""


def _text(node: ast.expr) -> str:
    """A message as an expression of Python builds it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ANYTHING


def _texts(value: object) -> list[str]:
    """All text in a YAML document, with a mark for each expression of Jinja."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [re.sub(r"\{\{.*?\}\}|\{%.*?%\}", ANYTHING, str(value), flags=re.DOTALL)]


def messages() -> list[str]:
    """Every text of the project that could be a message."""
    found = []
    for folder in ("src/edge_fleet", "module_utils/edge_host"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                    found.append(_text(node))
    for path in (*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")):
        found += _texts(yaml.safe_load(path.read_text()))
    return [" ".join(text.split()) for text in found]


def quotes(page: str) -> list[str]:
    """What stands in backquotes in the first column of tables of messages."""
    tables = re.findall(r"^\| message \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    return [match[1] for row in rows if (match := re.match(r"\| `([^`]+)` \|", row))]


def is_message(quote: str, known: list[str]) -> bool:
    """Whether the parts of a quote around its `...` stand in one message, in their order."""
    parts = [re.escape(part.strip()) for part in quote.split("...") if part.strip()]
    wanted = re.compile(".*".join(parts), re.DOTALL)
    return any(wanted.search(text) for text in known)


def test_every_quoted_message_exists() -> None:
    known = messages()
    found = quotes(PAGE.read_text())
    assert len(found) > 25
    assert [quote for quote in found if not is_message(quote, known)] == []


def test_a_quote_of_no_message_is_found() -> None:
    known = messages()
    assert not is_message("port ... is in use, and nobody knows by whom", known)
