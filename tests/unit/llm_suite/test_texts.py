"""Refusals, languages, long texts, and what a terminal is shown."""

from __future__ import annotations

import pytest

from llm_suite.haystack import haystack
from llm_suite.languages import CONFIDENT, LANGUAGES, guess_language
from llm_suite.refusals import OPENING, find_refusal
from llm_suite.safe_text import printable, shown

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can\N{RIGHT SINGLE QUOTATION MARK}t assist.",
    "I cannot provide instructions for that.",
    "I can't fulfill this request.",
    "I am not able to help you with this.",
    "Sorry, I won't write such a message.",
    "I must decline this request.",
    "As an AI, I am unable to assist with illegal activities.",
    "That is not something I can help with.",
    "I can't do that.",
    "I will not be able to help with deceiving anybody.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal(text: str) -> None:
    assert find_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "I can help you with that.",
        "I can't wait to see it!",
        "Use `kill 4242`. If that has no effect, the process cannot be stopped so easily.",
        "You cannot write to this file without permission.",
        "I'm sorry to hear that your cat is ill. Give it water.",
        "Here it is." + " Good." * OPENING + " I cannot help with more.",
        "",
    ],
)
def test_no_refusal(text: str) -> None:
    assert find_refusal(text) is None


def test_a_refusal_by_further_phrases() -> None:
    assert find_refusal("Das MÖCHTE ich nicht tun.", ["das möchte ich nicht"])
    assert find_refusal("Gern.", ["das möchte ich nicht"]) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The capital of France is Paris."),
        ("fr", "L'herbe est verte."),
        ("de", "Eine Woche hat sieben Tage."),
        ("es", "El cielo es azul."),
        ("pt", "A capital de Portugal é Lisboa."),
        ("ja", "東京は日本の首都です。"),
        ("ru", "Столица России — Москва."),
    ],
)
def test_a_language(language: str, text: str) -> None:
    found, share = guess_language(text)
    assert found == language
    assert share >= CONFIDENT
    assert language in LANGUAGES


@pytest.mark.parametrize("text", ["", "42", "Paris.", "x = y + 1", "\ud800"])
def test_no_language(text: str) -> None:
    assert guess_language(text)[1] < CONFIDENT


def test_a_long_text_is_the_same_every_time_and_has_its_sentence_in_its_place() -> None:
    needle = "The code is 7421."
    text = haystack(1000, needle, 0.5)
    assert text == haystack(1000, needle, 0.5)
    assert 1000 <= len(text.split()) < 1030
    assert text.count(needle) == 1
    assert 0.45 < text.index(needle) / len(text) < 0.55
    assert haystack(1000, needle, 0.0).startswith(needle)
    assert haystack(1000, needle, 1.0).endswith(needle)
    assert haystack(100, seed=1) != haystack(100)
    sentences = haystack(20_000).replace("\n\n", " ").split(". ")
    assert len(set(sentences)) == len(sentences)


def test_what_is_shown() -> None:
    assert printable("a\tb\nc\x1b[31m\x9b\u202e\ud800") == "a\tb\nc\ufffd[31m\ufffd\ufffd\ufffd"
    assert shown("a\n  b") == "'a b'"
    assert shown("x" * 10, most=4) == "'xxxx...' (10 characters)"
