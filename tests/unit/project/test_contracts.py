"""Each import contract is broken once, in a copy of the packages, and lint-imports names it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edge_fleet
import edge_host
import llm_provider
import llm_suite

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
LINTER = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]
CONTRACTS = [each["name"] for each in LINTER["contracts"]]
# A beginning of each contract's name: a file, and a line in it that breaks the contract.
BREAKS = {
    "edge_host, which runs on boards": ("edge_host/constants.py", "import edge_fleet"),
    "llm_provider, which runs in": ("llm_provider/errors.py", "import edge_host"),
    "edge_fleet knows nothing of": ("edge_fleet/text.py", "import ansible"),
    "edge_fleet imports only the pure": ("edge_fleet/text.py", "from edge_host import files"),
    "edge_host is built in layers": ("edge_host/constants.py", "from . import files"),
    "edge_fleet decides in one": ("edge_fleet/text.py", "from edge_fleet import tables"),
    "llm_provider is built in layers": ("llm_provider/errors.py", "from llm_provider import cli"),
    "llm_suite knows nothing of": ("llm_suite/suite.py", "import edge_fleet"),
    "llm_suite is built in layers": ("llm_suite/suite.py", "from llm_suite import runner"),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in (edge_fleet, edge_host, llm_provider, llm_suite):
        source = Path(str(package.__file__)).parent
        shutil.copytree(
            source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PYPROJECT, tmp_path)
    return tmp_path


def broken(folder: Path) -> list[str]:
    """The names of the contracts that lint-imports finds broken."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
    )  # fmt: skip
    outcomes = re.findall(r"^(.*) (KEPT|BROKEN)(?: \(.*\))?$", done.stdout, re.MULTILINE)
    assert len(outcomes) == len(CONTRACTS), done.stdout + done.stderr
    found = [name for name, outcome in outcomes if outcome == "BROKEN"]
    assert (done.returncode != 0) == bool(found)
    return found


def test_each_contract_is_broken_below() -> None:
    assert len(CONTRACTS) == len(BREAKS)
    for name, beginning in zip(CONTRACTS, BREAKS, strict=True):
        assert name.startswith(beginning)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_broken_contract_is_named(copy: Path, name: str) -> None:
    (where, line) = next(each for key, each in BREAKS.items() if name.startswith(key))
    with (copy / where).open("a") as file:
        file.write(f"\n{line}\n")
    assert broken(copy) == [name]


@pytest.mark.parametrize("package", ["edge_fleet", "edge_host", "llm_provider", "llm_suite"])
def test_a_module_without_a_layer_is_named(copy: Path, package: str) -> None:
    (copy / package / "somewhere.py").write_text("")
    (name,) = broken(copy)
    assert name.startswith(package)


def test_every_part_of_edge_host_is_pure_or_forbidden() -> None:
    """The contract's name lists the parts that the control machine may import."""
    (contract,) = (each for each in LINTER["contracts"] if "only the pure parts" in each["name"])
    pure = contract["name"].partition(": ")[2].split(", ")
    forbidden = [name.partition(".")[2] for name in contract["forbidden_modules"]]
    package = Path(edge_host.__file__).parent
    parts = {path.stem for path in package.iterdir() if not path.name.startswith("__")}
    assert sorted(parts) == sorted([*pure, *forbidden])
