"""The JavaScript openai package, on Node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients.asking import (
    CALL,
    EMBEDDERS,
    KEY,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    WIDTH,
    embedder,
    works_on,
)
from tests.integration.engines.conftest import House
from tests.integration.engines.serving import Served

FOLDER = Path(__file__).parent / "javascript"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    """What package-lock.json names, with its hashes checked; no script of a package is run."""
    words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(
        [BIN / "npm", *words], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def words(served: Served, what: str, text: str, key: str = KEY) -> list[str]:
    url = f"{served.api.base_url}/v1"
    return [str(BIN / "node"), str(FOLDER / "ask.mjs"), url, key, what, text]


def ask(served: Served, what: str, text: str = "Hello", key: str = KEY) -> Any:
    done = subprocess.run(
        words(served, what, text, key), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_chat(smoke: Served) -> None:
    answer = ask(smoke, "chat")
    assert answer["text"] == smoke.answer
    assert answer["usage"]["completion_tokens"] >= 8


@pytest.mark.parametrize("what", ["stream", "responses"])
def test_a_stream(smoke: Served, what: str) -> None:
    pieces = ask(smoke, what)["pieces"]
    assert len(pieces) > 2
    assert "".join(pieces).strip() == smoke.answer


def test_a_tool(tools: Served) -> None:
    assert ask(tools, "tool") == {"name": "get_weather", "arguments": CALL}


def test_a_structured_answer(smollm2: Served) -> None:
    assert ask(smollm2, "structured", QUESTION) == PARIS.model_dump()


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings(house: House, name: str) -> None:
    assert ask(embedder(house, name), "embeddings") == {"sizes": [WIDTH] * 2}


def test_errors_are_of_its_own_types(smoke: Served) -> None:
    assert ask(smoke, "chat", key="another-key") == {
        "type": "AuthenticationError",
        "status": 401,
        "code": "invalid_api_key",
    }
    assert ask(smoke, "stream", TOO_LONG) == {
        "type": "BadRequestError",
        "status": 400,
        "code": "context_length_exceeded",
    }


def test_leaving_a_stream_stops_the_engine(smollm2: Served) -> None:
    """While the process goes on: it is not its end that closes the connection."""
    works_on(smollm2, 0)
    pipe = subprocess.PIPE
    running = subprocess.Popen(words(smollm2, "leave", STORY), stdin=pipe, stdout=pipe, text=True)
    try:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline()) == {"aborted": True}
        works_on(smollm2, 0)
        assert running.poll() is None
    finally:
        running.communicate(timeout=60)
