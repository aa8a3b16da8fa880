"""JSON that other programs wrote, read without trusting its form."""

from __future__ import annotations

import json
from typing import Any, Dict, List

Facts = Dict[str, Any]
"""A JSON object."""


def parse_json(text: str) -> Any:
    """The value of JSON text; None for text that is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def objects(found: Any) -> List[Facts]:
    """The JSON objects of a list; none where it is something else."""
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def words(found: Any) -> List[str]:
    """The items of a JSON list, or the names in an object, as text; none of anything else."""
    return [str(each) for each in found] if isinstance(found, (list, dict)) else []


def parse_json_lines(text: str) -> List[Facts]:
    """One JSON object a line, as docker prints lists with `--format '{{json .}}'`."""
    return objects([parse_json(line) for line in text.splitlines() if line.startswith("{")])
