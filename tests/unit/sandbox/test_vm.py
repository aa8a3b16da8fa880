"""Which moments of a change a virtual board's power is cut at, and what is told of its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox import vm
from tests.system.vm.cuts import Cut, find_problems, select_cuts
from tests.system.vm.onboard import Writes

KEPT = {"current": "0002", "journal": True, "releases": ["0001", "0002"], "history": 2}
FOUND = {
    **KEPT,
    "journal": False,
    "history": 3,
    "previous": "0001",
    "service": "active",
    "log": "",
    "live": "a",
    "asked": "a",
    "last": {"action": "recover"},
    "damaged": {"0001": [], "0002": []},
    "running": ["door"],
    "containers": ["door"],
    "wanted": ["door"],
}


def cut(kind: str, name: str) -> Cut:
    return Cut(kind, name, KEPT, Path("disk"))


def test_a_start_cannot_tell_writes_into_a_hidden_folder_apart() -> None:
    writes = [
        cut("write", "rename to releases/.0003/.env"),
        cut("write", "rename to releases/.0003/release.json"),
        cut("write", "rename to releases/0003"),
        cut("step", "begin"),
        cut("write", "rename to change.json"),
        cut("step", "prove"),
    ]
    assert select_cuts(writes) == [*writes[1:3], *writes[4:]]


@pytest.mark.parametrize(
    ("kept", "found", "told"),
    [
        ({}, {}, []),
        ({"journal": False}, {"history": 2, "last": {"action": "deploy"}}, []),
        ({}, {"current": "0001", "previous": None}, ["it runs release 0001; 0002 was current"]),
        (
            {},
            {"previous": "0002"},
            ["it has no release to go back to: the one before is the current one"],
        ),
        ({}, {"releases": ["0002"]}, ["these releases are gone: 0001"]),
        ({}, {"damaged": {"0001": [".env"]}}, ["release 0001 is not whole: .env"]),
        ({}, {"live": "LLM_HOLD=1"}, ["the chat API follows 'LLM_HOLD=1'"]),
        ({}, {"journal": True}, ["the journal is left"]),
        ({}, {"service": "failed", "log": "no"}, ["edge-llm.service is failed: no"]),
        ({}, {"running": []}, [" run; door should", "these containers are there: door"]),
    ],
)
def test_what_is_wrong_after_a_start(
    kept: dict[str, Any], found: dict[str, Any], told: list[str]
) -> None:
    assert (
        find_problems(Cut("write", "x", KEPT | kept, Path()), FOUND | found, "yes", "yes") == told
    )


def test_a_missing_line_of_history_is_told() -> None:
    (told,) = find_problems(cut("write", "x"), FOUND | {"history": 2}, "yes", "yes")
    assert "there were 2, and a change had begun" in told


def test_what_is_not_flushed_is_left(tmp_path: Path) -> None:
    stops: list[str] = []
    writes = Writes(tmp_path, stops.append)
    writes._audited("open", (str(tmp_path / "folder/.a.new"), "w", 1))
    assert writes.left == ["write folder/.a.new"]
    writes._renamed(tmp_path / "folder", tmp_path / "other")
    assert writes.left == ["rename to other", "write other/.a.new"]
    writes._all_flushed()
    assert (writes.left, stops) == ([], ["sync"])


def test_another_recipe_is_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    before = vm.disk().folder
    monkeypatch.setitem(vm._FILES, "etc/hostname", "other\n")
    assert vm.disk().folder != before
