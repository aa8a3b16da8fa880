"""Pull or build: what was asked for, else what is remembered for a day, else one probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox import source
from sandbox.errors import SandboxError


def never() -> bool:
    raise AssertionError("nobody should have asked the registry")


@pytest.mark.parametrize("word", ["pull", "build"])
def test_the_environment_decides_without_a_probe(tmp_path: Path, word: str) -> None:
    remembered = tmp_path / "registry.json"
    assert source.decide({"SANDBOX_IMAGES": word}, remembered, never) == word
    assert not remembered.exists()


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="'guess'; it would have to be pull or build"):
        source.decide({"SANDBOX_IMAGES": "guess"}, tmp_path / "registry.json", never)


@pytest.mark.parametrize(("answers", "decided"), [(True, "pull"), (False, "build")])
def test_the_probes_answer_holds_for_a_day(tmp_path: Path, answers: bool, decided: str) -> None:
    remembered = tmp_path / "cache" / "registry.json"
    assert source.decide({}, remembered, lambda: answers, now=1000.0) == decided
    assert source.decide({}, remembered, never, now=1000.0 + 86399) == decided
    other = source.decide({}, remembered, lambda: not answers, now=1000.0 + 86401)
    assert other != decided


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", '{"answers": true}', json.dumps({"answers": 1, "asked_at": 9e9})]
)
def test_a_memory_that_makes_no_sense_is_asked_again(tmp_path: Path, text: str) -> None:
    remembered = tmp_path / "registry.json"
    remembered.write_text(text)
    assert source.decide({}, remembered, lambda: False, now=1000.0) == "build"
