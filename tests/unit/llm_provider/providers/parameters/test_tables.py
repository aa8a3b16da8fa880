"""The tables hold every field of OpenAI's API, and each of their rows takes effect."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from llm_provider.providers.parameters.openai_fields import FIELDS
from llm_provider.providers.parameters.rules import Effect, Rule
from llm_provider.providers.parameters.sorting import sort_fields
from llm_provider.providers.parameters.tables import TABLES
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.providers.selection import PROVIDERS

SDK = {
    CHAT: chat_create_params.CompletionCreateParamsBase,
    COMPLETIONS: completion_create_params.CompletionCreateParamsBase,
    RESPONSES: response_create_params.ResponseCreateParamsBase,
    EMBEDDINGS: embedding_create_params.EmbeddingCreateParams,
}
ALL = [(engine, route) for engine, tables in TABLES.items() for route in tables]


def nested(path: str, value: Any) -> Any:
    """The value of a path's field, in which the path leads to `value`."""
    for step in reversed(path.split(".")):
        value = [value] if step.endswith("[]") else value
        value = {step.removesuffix("[]"): value}
    (inner,) = value.values()
    return inner


def asked(rule: Rule) -> object:
    """A value that a rule is about."""
    return next(value for value in (*rule.only, "asked", 7) if value not in rule.does)


def test_every_engine_has_every_table() -> None:
    assert set(TABLES) == set(PROVIDERS)
    for tables in TABLES.values():
        assert set(tables) == set(FIELDS) == set(SDK)


@pytest.mark.parametrize("route", FIELDS)
def test_the_fields_are_those_of_the_sdk(route: str) -> None:
    stream = set() if route == EMBEDDINGS else {"stream"}
    assert set(SDK[route].__annotations__) | stream == FIELDS[route]


@pytest.mark.parametrize(("engine", "route"), ALL)
def test_every_field_is_in_every_table(engine: str, route: str) -> None:
    table = TABLES[engine][route]
    assert FIELDS[route] - table.known == set()
    assert table.done <= FIELDS[route]
    assert not table.extensions & table.done


@pytest.mark.parametrize(("engine", "route"), ALL)
def test_what_is_always_ignored_is_not_done_as_well(engine: str, route: str) -> None:
    table = TABLES[engine][route]
    always = {rule.path for rule in table.rules if not (rule.does or rule.only or rule.beside)}
    assert not always & (table.done | table.extensions)


@pytest.mark.parametrize(("engine", "route"), ALL)
def test_every_row_takes_effect_in_both_modes(engine: str, route: str) -> None:
    for rule in TABLES[engine][route].rules:
        fields = {rule.field: nested(rule.path, asked(rule)), "model": "default"}
        default = sort_fields(engine, route, fields, strict=False)
        strict = sort_fields(engine, route, fields, strict=True)
        assert strict.refusal is not None, rule
        assert strict.refusal.param == rule.path
        if rule.effect is Effect.REFUSE:
            assert default.refusal == strict.refusal, rule
            assert "which changes the answer" in strict.refusal.message
        else:
            assert default.refusal is None, rule
            assert default.dropped == (rule.path,)
            assert (rule.field in default.kept) == (rule.path != rule.field), rule
            assert "which strict mode refuses" in strict.refusal.message


@pytest.mark.parametrize(("engine", "route"), ALL)
def test_no_row_is_about_what_the_engine_does(engine: str, route: str) -> None:
    for rule in TABLES[engine][route].rules:
        for value in (*rule.does, None):
            assert rule.find({rule.field: nested(rule.path, value)}) is None, (rule, value)
        if rule.beside:
            assert rule.find({rule.field: asked(rule), rule.beside: True}) is None, rule
        empty = rule.find({rule.field: nested(rule.path, {})})
        assert (empty is not None) == rule.even_empty, rule
