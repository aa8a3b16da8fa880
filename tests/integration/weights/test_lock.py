"""`make lock` writes down what the hub and the registry say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sandbox.images
from sandbox import source
from tests.integration.weights.conftest import HUB
from tests.playing import ROOT, images


def lock(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/lock.py", "--hub", HUB, "--folder", str(folder), *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The catalogues, with what the sandbox has unlocked."""
    for name in ("models.yml", "engines.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / "models.yml").read_text()
    head, smoke = text.split("  smoke:\n")
    smoke, *rest = re.split(r"(?m)^(?=  \S)", smoke, maxsplit=1)
    for line in smoke.splitlines():
        word = line.strip().partition(":")[0].removeprefix("- ")
        if word in ("revision", "size", "sha256"):
            smoke = smoke.replace(line, f"{line.partition(':')[0]}: null")
    (tmp_path / "models.yml").write_text("".join([f"{head}  smoke:\n{smoke}", *rest]))
    return tmp_path


def test_a_model_is_locked_as_it_was(folder: Path) -> None:
    """Large files by the hub's word, small ones by what they are; comments and form stay."""
    assert (folder / "models.yml").read_text() != (ROOT / "models.yml").read_text()
    # The hub of the sandbox has no branches.
    done = lock(folder, "--model", "smoke", "--revision", "1")
    assert done.returncode == 0, done.stderr
    assert "smoke, gguf, smoke-1.gguf: 312,480 bytes, sha256 68577a643cebd2" in done.stdout
    assert "smoke, hf, config.json: 448 bytes, sha256 " in done.stdout
    found = yaml.safe_load((folder / "models.yml").read_text())
    assert found == yaml.safe_load((ROOT / "models.yml").read_text())
    assert "# Made by the sandbox" in (folder / "models.yml").read_text()


def test_a_difference_to_the_lock_is_reported(folder: Path) -> None:
    path = folder / "models.yml"
    path.write_text((ROOT / "models.yml").read_text().replace("312480", "312481"))
    done = lock(folder, "--model", "smoke")
    assert done.returncode == 1
    assert "smoke, gguf: left open: models.yml has size 312481 for smoke-1.gguf" in done.stderr
    assert "size: 312481" in path.read_text()


def test_entries_that_the_hub_lacks_stay_open(folder: Path) -> None:
    before = (folder / "models.yml").read_text()
    done = lock(folder, "--model", "llama-3.2-3b-instruct")
    assert done.returncode == 1
    assert done.stderr.count("left open") == 2
    assert "answered with status 404" in done.stderr
    assert (folder / "models.yml").read_text() == before
    done = lock(folder, "--model", "lama")
    assert done.returncode == 2
    assert "models.yml has no lama; it has: llama-3.2-1b-instruct" in done.stdout


def test_digests_are_read_from_the_registry(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open row is written, one that cannot be resolved stays open and is reported."""
    reference, _, digest = images()["ollama"].partition("@")
    host = reference.partition("/")[0]
    # The registry keeps what earlier checkouts pushed, so the repository may have several tags.
    tag = sandbox.images.table(source.decide())["ollama"].tag
    (row,) = yaml.safe_load((folder / "engines.yml").read_text())["engines"]["ollama"]["images"]
    text = (folder / "engines.yml").read_text()
    text = text.replace(row["image"], f"{reference}:{tag}").replace(row["digest"], "null")
    (folder / "engines.yml").write_text(text)
    # The sandbox's registry answers without TLS, and that is refused where nobody has allowed it.
    done = lock(folder, "--images", "ollama")
    assert done.returncode == 1
    assert f"{reference}:{tag}: left open: {reference}:{tag} could not be resolved:" in done.stdout
    assert (folder / "engines.yml").read_text() == text
    allowed = tmp_path / ".config/containers/registries.conf"
    allowed.parent.mkdir(parents=True)
    allowed.write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    done = lock(folder, "--images", "ollama")
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == f"{reference}:{tag}: {digest}"
    (row,) = yaml.safe_load((folder / "engines.yml").read_text())["engines"]["ollama"]["images"]
    assert row["digest"] == digest
