"""What clients notice of a change: a pause at most, while the new engine loads beside the old one.

And what is no change, or somebody's hand: what stands comes back, without a restart.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.playing import ROOT, play
from tests.swap.conftest import FOLDER, HOST, Board, assert_a_pause_at_most, known_answers

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


def test_nothing_changes_where_nothing_is_asked(board: Board) -> None:
    before = board.containers(), board.history()
    done = play("site.yml", HOST, a_variable_of_somebody_else="a comment")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    assert (board.containers(), board.history()) == before


def test_what_a_hand_has_changed_comes_back_without_a_restart(board: Board) -> None:
    before = board.containers()
    board.run("sh", "-c", f"echo '# by hand' >> {FOLDER}/docker-compose.yml")
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert "by hand" not in board.run("cat", f"{FOLDER}/docker-compose.yml")
    assert board.containers() == before
    assert board.history()[-1]["parts"] == []


@pytest.mark.parametrize("part", ["engine", "api", "door"])
def test_what_a_hand_has_stopped_runs_again(board: Board, part: str) -> None:
    slots = board.current()["slots"]
    name = f"edge-llm-{part}" + (f"-{slots[part]}" if part in slots else "")
    board.run("docker", "rm", "--force", name)
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert board.asked() == known_answers()["smollm2-135m"]
