"""Suites, read from YAML files and validated: by suite.schema.json, and by what no schema says."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

from llm_suite.languages import LANGUAGES
from llm_suite.safe_text import printable, shown
from llm_suite.suite import Suite, build_suite, texts
from llm_suite.yaml_file import InvalidYamlError, YamlFile

ENDING = ".yml"
OWN_FIELDS = {
    "messages": "Use turns",
    "model": "The host's model answers. Remove the field",
    "n": "One answer is judged. Remove the field",
    "stream": "Answers are judged as a whole. Remove the field",
    "tools": "Use tools of the conversation",
}
"""Fields of a request that a suite may not set."""
_MOST_BYTES = 1024 * 1024
_MOST_SHOWN = 60

Where = tuple[str | int, ...]


class SuiteError(Exception):
    """A suite cannot be used; the text is one sentence or more for a person."""


def find_suite(name: str, folders: Sequence[Path]) -> Path:
    """The file of a suite: a path that ends in .yml, or a name in the first folder that has it.

    Raises SuiteError.
    """
    if name.endswith(ENDING) or "/" in name:
        return Path(name)
    for folder in folders:
        if (path := folder / f"{name}{ENDING}").is_file():
            return path
    known = suite_names(folders)
    where = " and ".join(map(str, folders))
    there = f"there are {', '.join(known)}" if known else "no suite is there"
    raise SuiteError(
        f"The suite {shown(name)} is missing: in {where} {there}.{_did_you_mean(name, known)}"
        " Use one of these, or the path of a file that ends in .yml."
    )


def suite_names(folders: Sequence[Path]) -> list[str]:
    """The names of all suites in some folders, in order."""
    return sorted({path.stem for folder in folders for path in folder.glob(f"*{ENDING}")})


def read_suite(path: Path) -> Suite:
    """Read and validate a suite. Raises SuiteError, which names all that is wrong."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"The suite {path} cannot be read: {error.strerror}.") from error
    if len(raw) > _MOST_BYTES:
        raise SuiteError(f"{path} is invalid: it has {len(raw)} bytes. Use {_MOST_BYTES} at most.")
    try:
        file = YamlFile(raw.decode())
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path} is invalid: it is not UTF-8: {error.reason}.") from error
    except InvalidYamlError as error:
        raise SuiteError(
            f"{path} is invalid: line {error.line}: {printable(str(error))}."
        ) from error
    problems = sorted((file.line(where), text) for where, text in _problems(file.data))
    if problems:
        raise SuiteError(
            "\n".join(f"{path} is invalid: line {line}: {text}" for line, text in problems)
        )
    return build_suite(path.stem, file.data)


def _problems(data: Any) -> Iterator[tuple[Where, str]]:
    """Where a part of a file is invalid, and why."""
    found = False
    for error in _schema().iter_errors(data):
        found = True
        yield from _of_schema(error)
    if not found:
        yield from _of_conversations(data)


@cache
def _schema() -> Draft202012Validator:
    text = resources.files("llm_suite").joinpath("suite.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def _of_schema(error: ValidationError) -> Iterator[tuple[Where, str]]:
    where = tuple(error.absolute_path)
    name = _name(where)
    match error.validator:
        case "additionalProperties":
            known = list(error.schema.get("properties", {}))
            for key in error.instance:
                if key not in known:
                    yield (
                        (*where, str(key)),
                        (
                            f"{name} has no key {shown(str(key))}.{_did_you_mean(str(key), known)}"
                            f" Use {', '.join(known)}."
                        ),
                    )
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            yield where, f"{name}: {' and '.join(missing)} is missing."
        case "type":
            kinds = error.validator_value
            wanted = " or ".join([kinds] if isinstance(kinds, str) else kinds)
            yield where, f"{name} is {_show(error.instance)}. Use {_ARTICLES.get(wanted, wanted)}."
        case "minItems" | "minLength" | "minProperties":
            yield where, f"{name} is empty or too short. Give {error.validator_value} or more."
        case "pattern":
            key = f"{name} " if error.parent is None else f"a key of {name} "
            advice = error.schema.get("description", f"Use what matches {error.validator_value}.")
            yield where, f"{key}is {_show(error.instance)}. {advice}"
        case "minimum" | "maximum" | "exclusiveMinimum":
            bound = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}
            yield (
                where,
                (
                    f"{name} is {_show(error.instance)}. Use {bound[str(error.validator)]}"
                    f" {error.validator_value}."
                ),
            )
        case _:
            yield where, f"{name}: {shown(error.message)}."


_ARTICLES = {
    "string": "a text (in quotes, where it looks like a number or a date)",
    "object": "a mapping",
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "string or array": "a text or a list of texts",
    "object or boolean": "a mapping, or false: no tool is called",
    "boolean or object": "true, false, or a mapping with phrases",
}


def _of_conversations(data: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    yield from _of_request(("request",), data.get("request", {}))
    names: set[str] = set()
    for number, conversation in enumerate(data["conversations"]):
        where: Where = ("conversations", number)
        if conversation["name"] in names:
            yield (
                (*where, "name"),
                (
                    f"{_name(where)}: the name {conversation['name']} stands there twice. Use"
                    " another."
                ),
            )
        names.add(conversation["name"])
        yield from _of_request((*where, "request"), conversation.get("request", {}))
        tools = conversation.get("tools", {})
        for name, tool in tools.items():
            yield from _of_json_schema(
                (*where, "tools", name, "parameters"), tool.get("parameters", {})
            )
        if not any("expect" in turn for turn in conversation["turns"]):
            yield (
                where,
                f"{_name(where)} expects nothing, so it cannot fail. Give expect to a turn.",
            )
        for place, turn in enumerate(conversation["turns"]):
            yield from _of_turn((*where, "turns", place), turn, place, list(tools))


def _of_request(where: Where, request: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    for name, advice in OWN_FIELDS.items():
        if name in request:
            yield (*where, name), f"{_name(where)} has {name}. {advice}."


def _of_turn(
    where: Where, turn: Mapping[str, Any], place: int, tools: list[str]
) -> Iterator[tuple[Where, str]]:
    name = _name(where)
    if ("user" in turn) == ("tool_results" in turn):
        yield where, f"{name} needs either user or tool_results. Use one of them."
    elif "tool_results" in turn:
        if place == 0:
            yield where, f"{name} has tool_results, and no answer comes before. Begin with user."
        yield from (
            ((*where, "tool_results", each), _no_tool(name, each, tools))
            for each in turn["tool_results"]
            if each not in tools
        )
    if haystack := turn.get("haystack"):
        if "user" not in turn:
            yield where, f"{name} has a haystack, which stands before user. Add user."
        if ("words" in haystack) == ("fill" in haystack):
            yield (
                (*where, "haystack"),
                (f"{name}.haystack needs either words or fill. Use one of them."),
            )
    yield from _of_expect((*where, "expect"), turn.get("expect", {}), tools)


def _of_expect(
    where: Where, expect: Mapping[str, Any], tools: list[str]
) -> Iterator[tuple[Where, str]]:
    name = _name(where)
    for pattern in texts(expect.get("matches", [])):
        try:
            re.compile(pattern)
        except re.error as error:
            yield (
                (*where, "matches"),
                (f"{name}.matches is {_show(pattern)}, which is no regular expression: {error}."),
            )
    if "json_schema" in expect:
        yield from _of_json_schema((*where, "json_schema"), expect["json_schema"])
    language = expect.get("language")
    if language is not None and language not in LANGUAGES:
        yield (
            (*where, "language"),
            (
                f"{name}.language is {_show(language)}. Use a code of ISO 639 that can be"
                f" recognised: {', '.join(LANGUAGES)}."
            ),
        )
    call = expect.get("tool_call")
    if call is True:
        yield (*where, "tool_call"), f"{name}.tool_call is true. Use a mapping with its name."
    elif call:
        if call["name"] not in tools:
            yield (*where, "tool_call", "name"), _no_tool(name, call["name"], tools)
        yield from _of_json_schema(
            (*where, "tool_call", "arguments_schema"), call.get("arguments_schema", {})
        )
    contradictions = {"equals", "contains", "contains_any", "matches", "json_schema", "language"}
    if call and (both := sorted(contradictions & set(expect))):
        yield (
            where,
            (
                f"{name} has tool_call and {', '.join(both)}: an answer that calls a tool has no"
                " text. Judge the text of the turn after tool_results."
            ),
        )


def _of_json_schema(where: Where, schema: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    name = _name(where)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        yield (
            (*where, *error.absolute_path),
            (f"{name} is no JSON schema (draft 2020-12): {printable(error.message)}."),
        )
        return
    for reference in _references(schema):
        if not reference.startswith("#"):
            yield (
                where,
                (
                    f"{name} refers to {shown(reference)}, and nothing is fetched. Use a reference"
                    " within the schema, which begins with #."
                ),
            )


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _no_tool(name: str, tool: str, tools: list[str]) -> str:
    known = f"has {', '.join(tools)}" if tools else "has none"
    return (
        f"{name}: the tool {shown(tool)} is missing: the conversation {known}."
        f"{_did_you_mean(tool, tools)} Add it to tools."
    )


def _name(where: Iterable[str | int]) -> str:
    name = "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in where)
    return printable(name.lstrip(".")) or "the file"


def _show(value: object) -> str:
    return "empty" if value is None else shown(str(value), _MOST_SHOWN)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""
