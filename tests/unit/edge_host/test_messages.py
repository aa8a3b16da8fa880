"""The form of the errors that operators read: what is wrong, what was found, what to do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import edge_host

ERRORS = {"DownloadError", "HostLockedError", "ReleaseError", "StoreError"}
PACKAGE = Path(edge_host.__file__).parent
FILES = [
    path for name in ("download", "release", "weights") for path in PACKAGE.glob(f"{name}/*.py")
]
# Words of no documentation that a reader could search for.
UNUSUAL = re.compile(
    r"\b(asked|accepted (is|are)|is told|has it not|comes?|came|brings?|brought|lets? go)\b"
    r"|\b(proof|door)\b"
)


def messages(source: str) -> list[str]:
    """The texts with which a module's code raises the errors; values are `{}`."""
    return [
        text(node.args[0])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ERRORS
        and node.args
    ]


def text(node: ast.expr) -> str:
    """The text of an expression, as far as it stands in the code."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text, node.values))
    if isinstance(node, ast.BinOp):
        return text(node.left) + text(node.right)
    if isinstance(node, ast.IfExp):
        return text(node.body)
    return "{}"


def problems(message: str) -> list[str]:
    """What is wrong with a message, a phrase each."""
    found = [f"unusual: {match[0]}" for match in UNUSUAL.finditer(message)]
    if message.endswith("."):
        found.append("whoever shows it adds the full stop")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages(path: Path) -> None:
    found = {message: problems(message) for message in messages(path.read_text())}
    assert {message: each for message, each in found.items() if each} == {}


def test_most_messages_are_seen() -> None:
    assert sum(len(messages(path.read_text())) for path in FILES) > 50


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise ReleaseError(f'release {n} was asked')", "unusual: asked"),
        ("raise StoreError('size 0; ' + f'accepted is {n}')", "unusual: accepted is"),
        ("raise DownloadError('the disk is full.')", "whoever shows it adds the full stop"),
    ],
)
def test_a_message_in_another_form_is_found(source: str, problem: str) -> None:
    (message,) = messages(source)
    assert problems(message) == [problem]
