"""docs/chat-api.md says of connections what the code does."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

from llm_provider.server.limits import Limits

from .test_docs import API, SOURCE, _rows


def test_the_limits_are_the_codes() -> None:
    rows = _rows(API, "Connections")
    defaults = {row[0].strip("`"): row[1] for row in rows}
    assert defaults == {
        f"CHAT_API_{field.name.upper()}": f"{field.default:g}"
        if isinstance(field.default, float)
        else str(field.default or "none")
        for field in fields(Limits)
    }


def test_the_answers_of_the_connection_are_the_codes() -> None:
    """Status and code, as `connection_limits` calls its functions with them."""
    found = set()
    source = SOURCE / "server/connection_limits.py"
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "self._refuse",
            "self._answer",
        ):
            status, _, code = node.args
            if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                found.add((status.value, code.value))
    section = API.partition("These answers end the connection")[2].partition("### ")[0]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", section, re.MULTILINE)
    assert {(int(status), code) for status, code in rows} == found
