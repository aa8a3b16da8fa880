"""docs/chat-api.md says of connections what the code does."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

from llm_provider.server.connection_limits import MOST_PIPELINED
from llm_provider.server.engine_port import MOST_CONNECTIONS
from llm_provider.server.limits import Limits
from llm_provider.server.tls import WARN_SECONDS
from llm_provider.standalone.socket_holder import MOST_PEERS

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


def test_figures_in_sentences_are_the_codes() -> None:
    text = " ".join(API.split())
    assert f"{MOST_CONNECTIONS} connections are open there at once" in text
    assert f"It serves {MOST_PEERS} chat APIs at most." in text
    assert f"in the last {WARN_SECONDS / 86400:g} days the log has a warning" in text
    assert MOST_PIPELINED == 8
    assert "more than eight requests at once" in text
