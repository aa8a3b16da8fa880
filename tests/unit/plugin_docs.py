"""The documentation of the project's modules, compared with results."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
_TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "dict": dict,
    "float": (float, int),
    "int": int,
    "list": list,
    "path": str,
    "str": str,
}
# What Ansible itself adds to results.
_COMMON = {"changed", "diff", "failed", "invocation", "msg", "warnings", "deprecations"}


def section(path: Path, name: str) -> Any:
    """A documentation block of a plugin's file, as data."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no {name}")


def documented(module: str) -> dict[str, Any]:
    """RETURN of a module."""
    found = section(PROJECT / f"library/{module}.py", "RETURN")
    assert isinstance(found, dict)
    return found


def differences(module: str, result: Mapping[str, Any]) -> list[str]:
    """The values of a result that the documentation does not have, or has with another type."""
    own = {name: value for name, value in result.items() if name not in _COMMON and name[0] != "_"}
    return _compare(documented(module), own, module)


def missing(module: str, results: Iterable[Mapping[str, Any]]) -> list[str]:
    """The documented values that none of the results has."""
    seen: set[str] = set()
    for result in results:
        _walk(documented(module), result, module, seen)
    return sorted(_paths(documented(module), module) - seen)


def _entry(docs: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """The entry of a key; one in upper case stands for every key."""
    if len(docs) == 1 and (only := next(iter(docs))).isupper():
        return only, docs[only]
    return name, docs.get(name)


def _compare(docs: Mapping[str, Any], result: Mapping[str, Any], path: str) -> list[str]:
    found = []
    for name, value in result.items():
        at = f"{path}.{name}"
        _, entry = _entry(docs, name)
        if entry is None:
            found.append(f"{at} is not documented")
        elif value is None:
            if "null" not in entry["description"]:
                found.append(f"{at} is null, and its description does not say so")
        elif not _is(value, entry["type"]):
            found.append(f"{at} is {value!r}, and documented as {entry['type']}")
        elif isinstance(value, list):
            kind = entry.get("elements")
            found += [
                f"{at} has {each!r}, and elements {kind}" for each in value if not _is(each, kind)
            ]
        if entry and "contains" in entry and value is not None:
            for each in value if isinstance(value, list) else [value]:
                found += _compare(entry["contains"], each, at)
    return found


def _is(value: Any, kind: str | None) -> bool:
    if kind is None or (isinstance(value, bool) and kind != "bool"):
        return False
    return isinstance(value, _TYPES[kind])


def _walk(docs: Mapping[str, Any], result: Mapping[str, Any], path: str, seen: set[str]) -> None:
    for name, value in result.items():
        key, entry = _entry(docs, name)
        at = f"{path}.{key}"
        seen.add(at)
        if entry and "contains" in entry and value is not None:
            for each in value if isinstance(value, list) else [value]:
                _walk(entry["contains"], each, at, seen)


def _paths(docs: Mapping[str, Any], path: str) -> set[str]:
    found: set[str] = set()
    for name, entry in docs.items():
        at = f"{path}.{name}"
        found |= {at} | _paths(entry.get("contains", {}), at)
    return found
