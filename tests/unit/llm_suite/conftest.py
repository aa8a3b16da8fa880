"""A chat API that answers as a test says, and suites in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_suite.reading import read_suite
from llm_suite.suite import Suite
from tests.unit.llm_provider.scripted import KEY, Scripted, reply, serving, whole

SENTENCE = "All systems are ready: the edge model answers."

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the person who runs the tests has set must not decide them."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    with serving(Scripted()) as running:
        yield running


@pytest.fixture
def server(scripted: Scripted) -> Scripted:
    scripted.reset({"chat": reply(whole(SENTENCE))})
    return scripted


@pytest.fixture
def client(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """The server, as `make env` tells of it."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: object, name: str = "mine") -> Path:
        path = tmp_path / f"{name}.yml"
        path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
        return path

    return write


@pytest.fixture
def suite_of(write: Write) -> Callable[..., Suite]:
    """A suite of one conversation, of turns as a file has them."""

    def suite(*turns: Mapping[str, Any], **more: Any) -> Suite:
        conversation = {"name": "one", "turns": list(turns), **more}
        return read_suite(write({"title": "Mine", "conversations": [conversation]}))

    return suite
