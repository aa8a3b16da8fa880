"""What clients notice of a change: a pause at most, while both engines are there."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.integration.load import Board, assert_a_pause_at_most
from tests.playing import ROOT

# Provider and model as the inventory has them are Ollama and SmolLM2.
_LLAMA = {"llm_provider": "llamacpp"}
_SMOKE = _LLAMA | {"llm_model": "smoke"}
_SMALL = _LLAMA | {"llm_context_size": 2048}
_ALIAS = {"llm_model_aliases": ["gpt-4o"]}


def another(project: Path) -> dict[str, str]:
    """Variables by which site.yml takes the chat API of another version of this project."""
    for name in ("src", "templates", "requirements"):
        shutil.copytree(ROOT / name, project / name)
    with (project / "src/llm_provider/__init__.py").open("a") as file:
        file.write("# Another version.\n")
    return {"stack_project": str(project)}


def test_clients_notice_a_pause_at_most(board: Board, settled: None, tmp_path: Path) -> None:
    """Engine, model, context and chat API are changed in turns."""
    assert_a_pause_at_most(
        board,
        "beside",
        [
            (_LLAMA, ["engine"]),
            (_SMOKE, ["engine"]),
            (_LLAMA, ["engine"]),
            (_SMALL, ["engine"]),
            (_SMALL | _ALIAS, ["api"]),
            (_SMALL | _ALIAS | another(tmp_path), ["api"]),
            ({}, ["engine", "api"]),
        ],
    )
