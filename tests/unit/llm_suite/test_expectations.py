"""Every expectation, met and not met, with its message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_suite.answer import Answer, ToolCall, read_answer
from llm_suite.expectations import _JUDGES, judge, late
from llm_suite.reading import _schema

PERSON = {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}}


def text(words: str, **more: Any) -> Answer:
    return Answer(text=words, seconds=more.pop("seconds", 1.0), **more)


def call(name: str = "get_weather", arguments: object = None, raw: str | None = None) -> ToolCall:
    return ToolCall("call-0", name, json.dumps(arguments or {}) if raw is None else raw)


def calls(*made: ToolCall) -> Answer:
    return Answer(text="", seconds=1.0, calls=made)


WEATHER = {"name": "get_weather", "arguments": {"city": "Paris"}}
MET: list[tuple[dict[str, Any], Answer]] = [
    ({"equals": "Ready."}, text(" Ready.\n")),
    ({"contains": "paris"}, text("It is Paris.")),
    ({"contains": ["Paris", "the  capital"]}, text("Paris is THE\ncapital.")),
    ({"contains": "it's"}, text("It\N{RIGHT SINGLE QUOTATION MARK}s so.")),
    ({"contains_any": ["red", "blue"]}, text("Blue.")),
    ({"excludes": ["red", "green"]}, text("Blue.")),
    ({"matches": r"\b42\b"}, text("It is 42.")),
    ({"json_schema": PERSON}, text('{"age": 36}')),
    ({"json_schema": PERSON}, text('```json\n{"age": 36}\n```')),
    ({"tool_call": WEATHER}, calls(call(arguments={"city": "PARIS", "unit": "celsius"}))),
    ({"tool_call": WEATHER}, calls(call("look_up"), call(arguments={"city": "Paris"}))),
    ({"tool_call": {"name": "now"}}, calls(call("now", raw=""))),
    (
        {"tool_call": {"name": "f", "arguments": {"a": [1, {"b": "X"}], "c": True, "d": 1.0}}},
        calls(call("f", {"a": [1, {"b": "x"}], "c": True, "d": 1})),
    ),
    (
        {"tool_call": {"name": "f", "arguments_schema": {"required": ["a"]}}},
        calls(call("f", {"a": 1})),
    ),
    ({"tool_call": False}, text("Rome.")),
    ({"refuses": True}, text("I'm sorry, but I can't help with that.")),
    ({"refuses": True}, text("", refusal="No.")),
    ({"refuses": {"phrases": ["Je ne peux pas"]}}, text("Désolé, je ne peux pas.")),
    ({"refuses": False}, text("Certainly.")),
    ({"language": "fr"}, text("La capitale de la France est Paris.")),
    ({"seconds": 2}, text("Yes.", seconds=2.0)),
]


@pytest.mark.parametrize(("expect", "answer"), MET, ids=lambda each: str(each)[:50])
def test_met(expect: dict[str, Any], answer: Answer) -> None:
    outcomes = judge(expect, answer)
    assert outcomes
    assert [each.message for each in outcomes if not each.ok] == []


NOT_MET: list[tuple[dict[str, Any], Answer, str]] = [
    (
        {"equals": "Ready."},
        text("ready."),
        "equals: expected the answer 'Ready.', found 'ready.'",
    ),
    (
        {"contains": ["Paris", "Lyon"]},
        text("It is Paris."),
        "contains: expected an answer with 'Lyon', found 'It is Paris.'",
    ),
    (
        {"contains_any": ["red", "blue"]},
        text("Green."),
        "contains_any: expected an answer with one of 'red', 'blue', found 'Green.'",
    ),
    (
        {"excludes": "sorry"},
        text("Sorry."),
        "excludes: expected an answer without 'sorry', found 'Sorry.'",
    ),
    (
        {"matches": r"^\d+$"},
        text("42 days"),
        r"matches: expected an answer that matches '^\d+$', found '42 days'",
    ),
    ({"contains": "x"}, text(" "), "contains: expected an answer with 'x', found an empty answer"),
    (
        {"contains": "x"},
        text("", reasoning="Let me see"),
        "contains: expected an answer with 'x', found no text, only 10 characters of reasoning:"
        " a larger max_tokens lets the model come to its answer",
    ),
    (
        {"contains": "x"},
        text("Once upon", finish_reason="length"),
        "contains: expected an answer with 'x', found 'Once upon', cut off at its longest length",
    ),
    (
        {"json_schema": PERSON},
        text('{"age": "36"}'),
        'json_schema: expected JSON that fits the schema, found \'{"age": "36"}\', in which'
        " $.age: ''36' is not of type 'integer''",
    ),
    (
        {"json_schema": {"type": "number"}},
        text("NaN"),
        "json_schema: expected JSON that fits the schema, found 'NaN', which is no JSON: NaN is no"
        " value of JSON",
    ),
    (
        {"json_schema": {"type": "array"}},
        text("[" * 100_000),
        f"json_schema: expected JSON that fits the schema, found '{'[' * 300}...' (100000"
        " characters), which is no JSON: it is nested too deeply",
    ),
    (
        {"json_schema": {"$ref": "#/$defs/none"}},
        text("1"),
        "json_schema: expected JSON that fits the schema, found '1', in which the schema cannot be"
        " applied: ",
    ),
    (
        {"tool_call": WEATHER},
        text("It rains."),
        "tool_call: expected a call of get_weather with '{\"city\": \"Paris\"}', found 'It rains.'",
    ),
    (
        {"tool_call": WEATHER},
        calls(call("look_up")),
        'tool_call: expected a call of get_weather with \'{"city": "Paris"}\', found a call of'
        " 'look_up({})'",
    ),
    (
        {"tool_call": WEATHER},
        calls(call(arguments={"city": "Rome"})),
        'tool_call: expected a call of get_weather with \'{"city": "Paris"}\', found a call of'
        " 'get_weather({\"city\": \"Rome\"})', in which the argument 'city' is '\"Rome\"'",
    ),
    (
        {"tool_call": WEATHER},
        calls(call()),
        'tool_call: expected a call of get_weather with \'{"city": "Paris"}\', found a call of'
        " 'get_weather({})', in which the argument 'city' is missing",
    ),
    (
        {"tool_call": {"name": "f"}},
        calls(call("f", raw="{'a'")),
        "tool_call: expected a call of f, found a call of 'f({'a')', in which the arguments are no"
        " JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    (
        {"tool_call": {"name": "f"}},
        calls(call("f", raw="[]")),
        "tool_call: expected a call of f, found a call of 'f([])', in which the arguments are no"
        " object",
    ),
    (
        {"tool_call": {"name": "f", "arguments": {"on": True}}},
        calls(call("f", {"on": 1})),
        "tool_call: expected a call of f with '{\"on\": true}', found a call of 'f({\"on\": 1})',"
        " in which the argument 'on' is '1'",
    ),
    (
        {"tool_call": {"name": "f", "arguments_schema": {"required": ["a"]}}},
        calls(call("f")),
        "tool_call: expected a call of f with arguments that fit the schema, found a call of"
        " 'f({})', in which $: ''a' is a required property'",
    ),
    (
        {"tool_call": False},
        calls(call("f")),
        "tool_call: expected no call of a tool, found a call of 'f({})'",
    ),
    ({"refuses": True}, text("Sure."), "refuses: expected a refusal, found 'Sure.'"),
    (
        {"refuses": False},
        text("I cannot assist with that."),
        "refuses: expected no refusal, found 'I cannot assist with that.'",
    ),
    (
        {"refuses": False},
        text("", refusal="I will not."),
        "refuses: expected no refusal, found a refusal: 'I will not.'",
    ),
    (
        {"language": "fr"},
        text("The capital of France is Paris."),
        "language: expected an answer in the language fr, found 'The capital of France is Paris.',"
        " which is en",
    ),
    (
        {"language": "en"},
        text("42"),
        "language: expected an answer in the language en, found '42', whose language cannot be"
        " recognised: a longer text is needed",
    ),
    (
        {"seconds": 2},
        text("Yes.", seconds=2.5),
        "seconds: expected an answer within 2 s, found one after 2.50 s",
    ),
]


@pytest.mark.parametrize(("expect", "answer", "message"), NOT_MET, ids=lambda each: str(each)[:50])
def test_not_met(expect: dict[str, Any], answer: Answer, message: str) -> None:
    (found,) = [each.message for each in judge(expect, answer) if not each.ok]
    if message.endswith(": "):
        assert found.startswith(message)
    else:
        assert found == message


def test_an_answer_that_is_too_late() -> None:
    assert not late(0.5).ok
    assert late(0.5).message == (
        "seconds: expected an answer within 0.5 s, found none: the request was stopped"
    )


def test_every_expectation_of_the_schema_is_judged_and_tested() -> None:
    known = set(_schema().schema["$defs"]["expect"]["properties"])
    assert set(_JUDGES) == known
    assert {name for expect, _ in MET for name in expect} == known
    assert {name for expect, _, _ in NOT_MET for name in expect} == known


def test_what_a_message_shows_of_an_answer_steers_no_terminal() -> None:
    evil = "\x1b]0;gone\x07\x1b[2J\r\u202egnp.exe\u2028\ud800 \x9b31m"
    expectations: list[dict[str, Any]] = [
        {"contains": "x"}, {"json_schema": {}}, {"refuses": True},
    ]  # fmt: skip
    for expect in expectations:
        (outcome,) = judge(expect, text(evil))
        assert not set(outcome.message) & set("\x1b\x07\r\u202e\u2028\ud800\x9b")
        outcome.message.encode()
    (outcome,) = judge({"tool_call": WEATHER}, calls(call("\x1b[2J", raw="\x1b")))
    assert "\x1b" not in outcome.message


def test_reading_an_answer() -> None:
    function = {"name": "f", "arguments": "{}"}
    message = {"content": None, "tool_calls": [{"id": "a", "function": function}]}
    choice = {"message": message, "finish_reason": "tool_calls"}
    answer = read_answer({"choices": [choice], "usage": {"prompt_tokens": 7}}, 1.5)
    assert answer.calls == (ToolCall("a", "f", "{}"),)
    assert (answer.seconds, answer.prompt_tokens, answer.tokens) == (1.5, 7, None)
    assert answer.message() == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }
    assert text("").message() == {"role": "assistant", "content": ""}
