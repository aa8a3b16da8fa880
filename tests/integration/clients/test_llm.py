"""llm, the command and the package: a model of extra-openai-models.yaml."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import llm
import openai
import pytest
import yaml

from tests.integration.clients.asking import (
    CALL,
    KEY,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    Place,
    works_on,
)
from tests.integration.engines.serving import Served


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where llm has its settings."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


def served_as_edge(folder: Path, served: Served) -> None:
    """Have llm know the chat API as the model `edge`."""
    entry = {
        "model_id": "edge",
        "model_name": "default",
        "api_base": f"{served.api.base_url}/v1",
        "api_key_name": "edge",
        "supports_tools": True,
        "supports_schema": True,
    }
    (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump([entry]))


def command(*words: str, key: str = KEY) -> list[str]:
    return [sys.executable, "-m", "llm", "prompt", "--model=edge", f"--key={key}", *words]


def run(*words: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, key=key), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_command(folder: Path, smoke: Served) -> None:
    served_as_edge(folder, smoke)
    for words in ([], ["--no-stream"]):
        done = run(*words, "Hello")
        assert done.stdout.strip() == smoke.answer, done.stderr


def test_the_command_s_errors(folder: Path, smoke: Served) -> None:
    served_as_edge(folder, smoke)
    for key, text, said in (
        ("another-key", "Hello", "invalid_api_key"),
        (KEY, TOO_LONG, "context_length_exceeded"),
    ):
        done = run(text, key=key)
        assert done.returncode == 1
        assert said in done.stderr


def test_interrupting_the_command_stops_the_engine(folder: Path, smollm2: Served) -> None:
    served_as_edge(folder, smollm2)
    works_on(smollm2, 0)
    running = subprocess.Popen(
        command(STORY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        works_on(smollm2, 1)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode not in (0, -signal.SIGKILL)
    works_on(smollm2, 0)


def test_a_stream(folder: Path, smoke: Served) -> None:
    served_as_edge(folder, smoke)
    pieces = list(llm.get_model("edge").prompt("Hello", key=KEY))
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(pieces) == smoke.answer


async def test_an_asynchronous_stream(folder: Path, smoke: Served) -> None:
    served_as_edge(folder, smoke)
    pieces = [piece async for piece in llm.get_async_model("edge").prompt("Hello", key=KEY)]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(pieces) == smoke.answer


def test_a_tool(folder: Path, tools: Served) -> None:
    def get_weather(city: str, days: int) -> str:
        """The weather of the next days."""
        return f"{city}: rain for {days} days"

    served_as_edge(folder, tools)
    response = llm.get_model("edge").prompt("Will it rain?", tools=[get_weather], key=KEY)
    assert [(call.name, call.arguments) for call in response.tool_calls()] == [
        ("get_weather", CALL)
    ]
    (result,) = response.execute_tool_calls()
    assert result.output == "Paris: rain for 3 days"


def test_a_structured_answer(folder: Path, smollm2: Served) -> None:
    served_as_edge(folder, smollm2)
    response = llm.get_model("edge").prompt(
        QUESTION, schema=Place, key=KEY, temperature=0, max_tokens=80
    )
    assert Place.model_validate_json(response.text()) == PARIS


def test_errors_are_those_of_openai(folder: Path, smoke: Served) -> None:
    served_as_edge(folder, smoke)
    with pytest.raises(openai.AuthenticationError):
        llm.get_model("edge").prompt("Hello", key="another-key").text()
    with pytest.raises(openai.BadRequestError) as size:
        llm.get_model("edge").prompt(TOO_LONG, key=KEY).text()
    assert size.value.code == "context_length_exceeded"
