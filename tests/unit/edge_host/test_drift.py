"""Whether a release is as it was deployed: each file, and the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_host.constants import DEPLOYED_FILES
from edge_host.host_info.drift import WEIGHTS, list_drift, read_drift
from tests.unit.edge_host.deployed import deployed


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return deployed(tmp_path / "edge-llm")


def differing(root: Path) -> list[str]:
    return [name for name, differs in read_drift(root).items() if differs]


def test_a_release_in_place_has_no_drift(release: Path) -> None:
    assert read_drift(release) == dict.fromkeys((*DEPLOYED_FILES, WEIGHTS), False)
    assert list_drift(release) == []


@pytest.mark.parametrize("name", DEPLOYED_FILES)
def test_an_edited_and_a_missing_file_are_named(release: Path, name: str) -> None:
    (release / name).write_text("edited\n")
    assert differing(release) == [name]
    (release / name).unlink()
    assert differing(release) == list_drift(release) == [name]


def test_replaced_and_missing_weights_are_named(release: Path) -> None:
    weights = release / "models/m.gguf"
    weights.write_bytes(b"FUGG")  # of the same size
    assert differing(release) == [WEIGHTS]
    assert list_drift(release) == ["models/m.gguf"]
    weights.unlink()
    assert differing(release) == [WEIGHTS]
    assert list_drift(release) == ["models/m.gguf"]


def test_a_host_without_a_release_has_no_drift(tmp_path: Path) -> None:
    assert read_drift(tmp_path) == {}
