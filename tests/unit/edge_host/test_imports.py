"""What every module of edge_host must be: it runs on boards, and wherever Ansible puts it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import edge_host

PACKAGE = Path(edge_host.__file__).parent
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imports(tree: ast.Module) -> list[str]:
    """The modules that a module imports; relative ones begin with dots."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_it_runs_on_a_board(name: str) -> None:
    """Python 3.8, which JetPack 5 has, can parse it, and it takes the standard library alone."""
    tree = ast.parse((PACKAGE / name).read_text(), feature_version=(3, 8))
    others = [
        each
        for each in imports(tree)
        if not each.startswith(".") and each.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert others == []
