"""docs/architecture.md and CONTRIBUTING.md name files, functions and make targets that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ARCHITECTURE = ROOT / "docs/architecture.md"
DOCUMENTS = (ARCHITECTURE, ROOT / "CONTRIBUTING.md")
# Where a path may start, besides the folder of a path before it in the same line.
FOLDERS = ("", "src/edge_fleet", "module_utils/edge_host", "src/llm_provider", "src/llm_suite")
_PATH = re.compile(r"`([\w./*-]+(?:/|\.(?:py|yml|j2|md|in|txt|json|toml)))(?:: ([\w.]+))?`")
# On a host or beside an inventory, not in the repository; and names that a reader makes.
_ELSEWHERE = re.compile(
    r"(releases|models|secrets|engine|run|lib|source|change|inventories/mine|docker-compose|"
    r"history|dist|edge-llm-[0-9]|\.verified|\.fetch|\.cache|\.sandbox|\.venv|\.facts|\.secrets|ollama)\b.*"
    r"|/.*|release\.json|__main__\.py"
)


def _symbols(path: Path) -> set[str]:
    """Functions, classes, methods and constants of a Python file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            names |= {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            names |= {f"{node.name}.{each.name}" for each in methods}
    return names


def missing(text: str) -> list[str]:
    """The paths and functions that a document names and the repository does not have."""
    found = []
    for line in text.splitlines():
        folders = list(FOLDERS)
        for name, symbol in _PATH.findall(line):
            if _ELSEWHERE.fullmatch(name):
                continue
            choices = [each for folder in folders for each in _files(folder, name)]
            path = next((each for each in choices if each.exists()), None)
            if path is None:
                found.append(name)
                continue
            folders.append(str((path if path.is_dir() else path.parent).relative_to(ROOT)))
            if symbol and symbol not in _symbols(path):
                found.append(f"{name}: {symbol}")
    return found


def _files(folder: str, name: str) -> list[Path]:
    return list((ROOT / folder).glob(name)) if "*" in name else [ROOT / folder / name]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    assert missing(document.read_text()) == []


def test_a_wrong_name_is_found() -> None:
    text = "`drift.py: stack_in_place`, `drift.py: nothing`, `roles/board/none.yml`, `cli.py`"
    assert missing(text) == ["drift.py: nothing", "roles/board/none.yml"]


@pytest.mark.parametrize("package", [each for each in FOLDERS if each])
def test_every_module_of_a_package_is_described(package: str) -> None:
    text = ARCHITECTURE.read_text()
    for path in (ROOT / package).rglob("*.py"):
        name = str(path.relative_to(ROOT / package))
        if path.name not in ("__init__.py", "__main__.py"):
            assert f"`{name}" in text or f"`{path.stem}`" in text or f"`{path.name}" in text, name


def test_every_role_and_plugin_is_described() -> None:
    text = ARCHITECTURE.read_text()
    for path in (ROOT / "roles").iterdir():
        assert f"| `{path.name}` |" in text, path.name
    for folder in ("library", "action_plugins", "callback_plugins", "filter_plugins"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"`{folder}/{path.name}`" in text, path.name


def test_there_are_answers_for_many_questions() -> None:
    rows = ARCHITECTURE.read_text().partition("## You want to change X")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| .* \| .* \|$", rows, re.MULTILINE)) > 25


def test_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets |= {f"test-{path.name}" for path in (ROOT / "tests/integration").iterdir()}
    for document in (ROOT / "README.md", *DOCUMENTS, *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"`make ([a-z0-9-]+)", document.read_text()):
            assert target in targets | {name.replace("_", "-") for name in targets}, target
