"""Judges an answer by what a turn of a suite expects.

Each outcome says what was expected and what was found, in words that a terminal can show.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from llm_suite.answer import Answer, ToolCall
from llm_suite.languages import CONFIDENT, guess_language
from llm_suite.refusals import find_refusal
from llm_suite.safe_text import printable, shown
from llm_suite.suite import texts

_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*?)\n?```\Z", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """One expectation: whether the answer meets it, what was expected and what was found."""

    name: str
    ok: bool
    expected: str
    found: str

    @property
    def message(self) -> str:
        """The outcome as a sentence's part."""
        return f"{self.name}: expected {self.expected}, found {self.found}"


def judge(expect: Mapping[str, Any], answer: Answer) -> list[Outcome]:
    """The outcome of each expectation, in the order of the file.

    A file whose expectations were validated by llm_suite.reading is taken for granted.
    """
    return [outcome for name, value in expect.items() for outcome in _JUDGES[name](value, answer)]


def late(limit: float) -> Outcome:
    """The outcome of a time limit after which the answer was not complete."""
    return Outcome(
        "seconds", False, f"an answer within {limit:g} s", "none: the request was stopped"
    )


def _plain(text: str) -> str:
    """A text in one form: case, white space and compatible characters make no difference."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def _equals(value: str, answer: Answer) -> Iterator[Outcome]:
    ok = answer.text.strip() == value.strip()
    yield Outcome("equals", ok, f"the answer {shown(value)}", answer.describe())


def _contains(value: str | list[str], answer: Answer) -> Iterator[Outcome]:
    for each in texts(value):
        ok = _plain(each) in _plain(answer.text)
        yield Outcome("contains", ok, f"an answer with {shown(each)}", answer.describe())


def _contains_any(value: list[str], answer: Answer) -> Iterator[Outcome]:
    ok = any(_plain(each) in _plain(answer.text) for each in value)
    expected = f"an answer with one of {', '.join(map(shown, value))}"
    yield Outcome("contains_any", ok, expected, answer.describe())


def _excludes(value: str | list[str], answer: Answer) -> Iterator[Outcome]:
    for each in texts(value):
        ok = _plain(each) not in _plain(answer.text)
        yield Outcome("excludes", ok, f"an answer without {shown(each)}", answer.describe())


def _matches(value: str | list[str], answer: Answer) -> Iterator[Outcome]:
    for each in texts(value):
        ok = re.search(each, answer.text) is not None
        yield Outcome("matches", ok, f"an answer that matches {shown(each)}", answer.describe())


def _json_schema(schema: Mapping[str, Any], answer: Answer) -> Iterator[Outcome]:
    expected = "JSON that fits the schema"
    text = answer.text.strip()
    fenced = _FENCE.match(text)
    try:
        value = _parse(fenced[1] if fenced else text)
    except ValueError as error:
        found = f"{answer.describe()}, which is no JSON: {printable(str(error))}"
        yield Outcome("json_schema", False, expected, found)
        return
    problem = _schema_problem(schema, value)
    found = f"{answer.describe()}, in which {problem}" if problem else answer.describe()
    yield Outcome("json_schema", not problem, expected, found)


def _tool_call(value: Mapping[str, Any] | bool, answer: Answer) -> Iterator[Outcome]:
    if isinstance(value, bool):
        yield Outcome("tool_call", not answer.calls, "no call of a tool", answer.describe())
        return
    wanted, schema = value.get("arguments", {}), value.get("arguments_schema", {})
    more = f" with {shown(json.dumps(wanted, ensure_ascii=False))}" if wanted else ""
    more += " with arguments that fit the schema" if schema else ""
    expected = f"a call of {value['name']}{more}"
    calls = [call for call in answer.calls if call.name == value["name"]]
    # Of several calls one is enough: a model may look things up before.
    problems = [_call_problem(call, wanted, schema) for call in calls]
    if "" in problems:
        yield Outcome("tool_call", True, expected, answer.describe())
        return
    reasons = f", in which {'; '.join(problems)}" if problems else ""
    yield Outcome("tool_call", False, expected, f"{answer.describe()}{reasons}")


def _call_problem(call: ToolCall, wanted: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Why a call is not the expected one; empty where it is."""
    try:
        arguments = _parse(call.arguments or "{}")
    except ValueError as error:
        return f"the arguments are no JSON: {printable(str(error))}"
    if not isinstance(arguments, dict):
        return "the arguments are no object"
    for name, value in wanted.items():
        if name not in arguments:
            return f"the argument {shown(name)} is missing"
        if not _same(value, arguments[name]):
            seen = json.dumps(arguments[name], ensure_ascii=False)
            return f"the argument {shown(name)} is {shown(seen)}"
    return _schema_problem(schema, arguments)


def _same(wanted: object, seen: object) -> bool:
    """Whether two values of JSON are the same; texts but for case and white space."""
    if isinstance(wanted, str) and isinstance(seen, str):
        return _plain(wanted) == _plain(seen)
    if isinstance(wanted, bool) or isinstance(seen, bool):
        return wanted is seen
    if isinstance(wanted, list) and isinstance(seen, list):
        return len(wanted) == len(seen) and all(map(_same, wanted, seen))
    if isinstance(wanted, dict) and isinstance(seen, dict):
        return wanted.keys() == seen.keys() and all(_same(wanted[key], seen[key]) for key in wanted)
    return wanted == seen


def _refuses(value: Mapping[str, Any] | bool, answer: Answer) -> Iterator[Outcome]:
    wanted = value is not False
    phrases = value["phrases"] if isinstance(value, Mapping) else []
    words = answer.refusal or find_refusal(answer.text, phrases)
    expected = "a refusal" if wanted else "no refusal"
    yield Outcome("refuses", bool(words) == wanted, expected, answer.describe())


def _language(value: str, answer: Answer) -> Iterator[Outcome]:
    language, share = guess_language(answer.text)
    found = answer.describe()
    if share < CONFIDENT:
        found += ", whose language cannot be recognised: a longer text is needed"
    elif language != value:
        found += f", which is {language}"
    ok = language == value and share >= CONFIDENT
    yield Outcome("language", ok, f"an answer in the language {value}", found)


def _seconds(limit: float, answer: Answer) -> Iterator[Outcome]:
    ok = answer.seconds <= limit
    yield Outcome(
        "seconds", ok, f"an answer within {limit:g} s", f"one after {answer.seconds:.2f} s"
    )


def _parse(text: str) -> Any:
    """A text of JSON. Raises ValueError, also for what only Python takes for JSON."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no value of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _schema_problem(schema: Mapping[str, Any], value: object) -> str:
    """What in a value does not fit a schema; empty where all fits."""
    # An empty registry fetches nothing.
    validator = Draft202012Validator(schema, registry=Registry())
    try:
        error = min(
            validator.iter_errors(value), key=lambda each: str(each.json_path), default=None
        )
    except (Unresolvable, RecursionError) as failure:
        return f"the schema cannot be applied: {shown(str(failure))}"
    return f"{printable(error.json_path)}: {shown(error.message)}" if error else ""


_JUDGES: Mapping[str, Callable[[Any, Answer], Iterator[Outcome]]] = {
    "equals": _equals,
    "contains": _contains,
    "contains_any": _contains_any,
    "excludes": _excludes,
    "matches": _matches,
    "json_schema": _json_schema,
    "tool_call": _tool_call,
    "refuses": _refuses,
    "language": _language,
    "seconds": _seconds,
}
