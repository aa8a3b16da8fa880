"""The sandbox as a whole."""

from __future__ import annotations

import pytest

from sandbox import fleet
from sandbox.images import Image
from sandbox.steps import Step


@pytest.mark.parametrize(("there", "made"), [(True, []), (False, ["ollama"])])
def test_what_an_image_is_made_of_is_made_only_for_one_that_is_not_there(
    there: bool, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "there", there)
    asked: list[str] = []

    def build(step: Step) -> str | None:
        asked.append(step.name)
        return None

    act = fleet._unless_there(Image("ollama", "tag"), build)
    note = act(Step("ollama", "Ollama from its source", build))
    assert (asked, note) == (made, "not needed" if there else None)
