"""The chat API's bundle: named by everything that it is made of."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edge_fleet import chat_api_bundle as bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/api.txt", tmp_path / "requirements/api.txt")
    return tmp_path


def test_the_version_is_the_same_for_the_same_contents(project: Path) -> None:
    (project / "src/llm_provider/__pycache__").mkdir(exist_ok=True)
    (project / "src/llm_provider/__pycache__/x.pyc").write_bytes(b"x")
    assert bundle.version_of(project, "base", "arm64") == bundle.version_of(ROOT, "base", "arm64")


@pytest.mark.parametrize(
    "path", ["src/llm_provider/server/application.py", "src/Dockerfile", "requirements/api.txt"]
)
def test_the_version_changes_with_every_part(project: Path, path: str) -> None:
    before = bundle.version_of(project, "base", "arm64")
    with (project / path).open("a") as file:
        file.write("\n")
    assert bundle.version_of(project, "base", "arm64") != before


def test_the_version_changes_with_base_and_architecture(project: Path) -> None:
    versions = {
        bundle.version_of(project, base, architecture)
        for base in ("one", "two")
        for architecture in bundle.MACHINES
    }
    assert len(versions) == 4


def test_no_bytecode_of_this_machine_travels(project: Path) -> None:
    names = bundle.sources(project)
    assert "Dockerfile" in names
    assert "app/llm_provider/server/application.py" in names
    assert not [name for name in names if "__pycache__" in name]


def test_wheels_that_cannot_be_had_are_an_error_with_the_reason(project: Path) -> None:
    (project / "requirements/api.txt").write_text("not a requirement\n")
    archive = project / "cache" / "archive.tar.gz"
    with pytest.raises(OSError, match=r"wheels for arm64 could not be fetched: .*Invalid require"):
        bundle.build(project, "arm64", archive)
    assert list(archive.parent.iterdir()) == [], "a failure leaves nothing behind"


def test_a_package_index_that_does_not_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = project / "pip"
    endless.write_text("#!/bin/sh\nexec sleep infinity\n")
    endless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(endless))
    monkeypatch.setattr(bundle, "PIP_SECONDS", 0.2)
    with pytest.raises(OSError, match="wheels for arm64") as caught:
        bundle.bundle(project, project / "cache", "base", "arm64", check=False)
    assert str(caught.value) == (
        "the chat API's wheels for arm64 could not be fetched: pip did not end within 0.2 s. Check"
        " the package index and the network of the control machine, and run this again"
    )
    assert not list((project / "cache").glob("*.tar.gz"))
