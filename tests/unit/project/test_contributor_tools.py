"""The tools of contributors: each agrees with the file that defines what it is about."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import images, ollama

ROOT = Path(__file__).parents[3]


def _braces(word: str) -> list[str]:
    """A word with one pair of braces, as the shell expands it."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", word)
    return [f"{match[1]}{each}{match[3]}" for each in match[2].split(",")] if match else [word]


def _linters() -> list[list[str]]:
    """The commands of `make lint`, each as its words."""
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    lines = [line.strip() for line in recipe.splitlines()[1:]]
    commands = [each for line in lines if line[0] != "@" for each in line.split(" && ")]
    return [
        [part for word in shlex.split(command) for part in _braces(word)] for command in commands
    ]


def test_pre_commit_runs_the_linters_of_make_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    assert len(hooks) >= 7
    assert [[hook[0].removeprefix(".venv/bin/"), *hook[1:]] for hook in hooks] == _linters()


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=str)
def test_a_workflow_runs_a_make_target_with_pinned_actions(path: Path) -> None:
    steps: list[dict[str, Any]] = [
        step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]
    ]
    assert f"make {path.stem}" in [step.get("run") for step in steps]
    uses = [step["uses"] for step in steps if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each) for each in uses)


def test_the_tests_that_take_root_run_in_the_workflow() -> None:
    """The runner's user is not root, so that `make test` skips them there."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    commands = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert commands.index('sudo env "PATH=$PATH" make unit-root') > commands.index("make test")
    said = subprocess.run(
        ["make", "--dry-run", "unit-root"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = (each for each in said.splitlines() if each.startswith("pytest "))
    skipping = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests/unit").rglob("test_*.py")
        if re.search(r"(?m)^(@|pytestmark = )needs_root$|^    if os\.geteuid\(\)", path.read_text())
    }
    assert len(skipping) > 5
    assert skipping <= set(line.split()[2:])


def _renovate(file: str) -> list[dict[str, str]]:
    """What Renovate's expressions find in a file; they are RE2's, which names groups as here."""
    config = json.loads((ROOT / "renovate.json").read_text())
    found = []
    for manager in config["customManagers"]:
        if any(re.search(each.strip("/"), file) for each in manager["managerFilePatterns"]):
            for expression in manager["matchStrings"]:
                named = re.compile(expression.replace("(?<", "(?P<"))
                found += [each.groupdict() for each in named.finditer((ROOT / file).read_text())]
    return found


def test_renovate_finds_every_image_that_has_a_tag() -> None:
    text = (ROOT / "engines.yml").read_text().splitlines()
    pinned = [
        (image.split("image: ")[1], digest.split("digest: ")[1])
        for image, digest in pairwise(text)
        if re.search(r"image: \S+/[^/]+:\S+$", image)
    ]
    assert len(pinned) >= 12
    assert pinned == [
        (f"{each['depName']}:{each['currentValue']}", each["currentDigest"])
        for each in _renovate("engines.yml")
    ]


def test_renovate_finds_the_pins_of_the_sandbox() -> None:
    found = [each["currentValue"] for each in _renovate("sandbox/ollama.py")]
    assert found == [ollama.VERSION, ollama.GO]
    (base,) = _renovate("sandbox/images.py")
    pinned = f"{base['depName']}:{base['currentValue']}@{base['currentDigest']}"
    assert pinned == images._OFFICIAL_BASE


@pytest.mark.parametrize("lock", ["api", "control", "dev"])
def test_a_lock_has_what_its_source_pins(lock: str) -> None:
    """Renovate changes the source; the lock is made from it by a person."""
    source = (ROOT / f"requirements/{lock}.in").read_text()
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    for pin in re.findall(r"^[\w.-]+==\S+$", source, re.MULTILINE):
        assert re.search(rf"^{re.escape(pin)} ", text, re.MULTILINE), pin
