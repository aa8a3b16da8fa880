"""site.yml gives a board real vLLM with a model in Hugging Face's format, and takes it back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.load import Board, Load, loaded
from tests.integration.weights.conftest import shell
from tests.playing import ROOT, command, finished, message, play

HOST = "jetson-01"
REFERENCE = ROOT / ".sandbox/test/vllm.json"
START_SECONDS = 900
"""How long a change waits for vLLM: a CPU takes its time to load torch."""


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return {
        "llm_provider": "vllm",
        "llm_model": "smoke",
        "llm_image": json.loads(REFERENCE.read_text()),
        "stack_start_timeout": START_SECONDS,
    }


@pytest.fixture(scope="module")
def board() -> Board:
    """The board as its inventory has it: llama.cpp."""
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    lines = (ROOT / f".sandbox/test/keys/{HOST}.env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return Board(found["OPENAI_BASE_URL"].removesuffix("/v1"), found["OPENAI_API_KEY"], HOST)


@pytest.fixture(scope="module")
def changed(board: Board, given: dict[str, Any]) -> tuple[str, Load]:
    """What the change to vLLM said, and what clients met who asked all the while."""
    with loaded(board) as load:
        done = finished(command("site.yml", HOST, **given), limit=2 * START_SECONDS)
    assert done.returncode == 0, done.stdout
    return message(done), load


def test_it_is_proven_and_serves(board: Board, changed: tuple[str, Load]) -> None:
    said, load = changed
    assert "All systems are ready: the edge model answers." in said
    ready = board.ready()
    assert (ready["provider"], ready["model"], ready["context_size"]) == ("vllm", "smoke", 4096)
    assert load.wrong == []
    assert set(load.models) == {"smollm2-135m", "smoke"}


def test_its_weights_are_a_folder_that_was_verified(changed: tuple[str, Load]) -> None:
    names = shell(HOST, "ls /opt/edge-llm/models/smoke.hf").split()
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    record = json.loads(shell(HOST, "cat /opt/edge-llm/models/.verified.json"))
    assert {f"smoke.hf/{name}" for name in names} <= set(record)


def test_a_second_run_changes_nothing(changed: tuple[str, Load], given: dict[str, Any]) -> None:
    done = play("site.yml", HOST, **given)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_the_host_is_as_any_other(changed: tuple[str, Load], given: dict[str, Any]) -> None:
    tests = play("tests/system/hosts/run.yml", f"{HOST},localhost", tests_hosts=[HOST], **given)
    assert tests.returncode == 0, tests.stdout


def test_it_goes_back_to_llama_cpp(board: Board, changed: tuple[str, Load]) -> None:
    with loaded(board) as load:
        done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert board.ready()["provider"] == "llamacpp"
    assert load.wrong == []
