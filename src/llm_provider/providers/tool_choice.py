"""A `tool_choice` that names a function, for engines that take no name.

A request that offers the one function alone asks for the same.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from llm_provider.errors import Unsupported


def offer_chosen_tool(body: MutableMapping[str, Any]) -> bool:
    """Leave only the function that `tool_choice` names in `tools`; False where it names none.

    `body` is one of /v1/chat/completions or of /v1/responses. Raises Unsupported where `tools` has
    no such function.
    """
    name = _name(body["tool_choice"]) if "tool_choice" in body else None
    if name is None:
        return False
    tools = body.get("tools")
    offered = [tool for tool in tools if isinstance(tool, Mapping)] if tools else []
    chosen = [tool for tool in offered if _function(tool).get("name") == name]
    if not chosen:
        names = ", ".join(str(_function(tool).get("name"))[:60] for tool in offered[:8])
        raise Unsupported(
            f"'tool_choice' names the function {str(name)[:60]!r}, which 'tools' does not have: "
            f"it has {names or 'none'}. Name one of 'tools'.",
            param="tool_choice",
        )
    body["tools"] = chosen
    return True


def _name(choice: object) -> object:
    """Return the name that a `tool_choice` holds; None where it is not about one function."""
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        return None
    return _function(choice).get("name")


def _function(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what names a function: a member of its own for chat, the entry itself elsewhere."""
    function = entry.get("function", entry)
    return function if isinstance(function, Mapping) else {}
