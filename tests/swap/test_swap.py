"""What clients notice of a change: a pause at most, whatever changes, and however."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import Any

import pytest

from tests.playing import ROOT, images, message, play
from tests.swap.conftest import FOLDER, HOST, Board, known_answers, loaded

# Provider and model as the inventory has them are Ollama and SmolLM2; `one` is stack_swap.
_LLAMA = {"llm_provider": "llamacpp"}
_SMOKE = _LLAMA | {"llm_model": "smoke"}
_SMALL = _LLAMA | {"llm_context_size": 2048}
_ALIAS = {"llm_model_aliases": ["gpt-4o"]}
# The test fills in where that is.
_VERSION = {"stack_project": "another version of this project"}


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables by which site.yml takes the chat API of another version of this project."""
    project = tmp_path_factory.mktemp("version")
    for name in ("src", "templates", "requirements"):
        shutil.copytree(ROOT / name, project / name)
    with (project / "src/llm_provider/__init__.py").open("a") as file:
        file.write("# Another version.\n")
    return {"stack_project": str(project)}


@pytest.mark.parametrize(
    ("swap", "changes"),
    [
        (
            "beside",
            [
                (_LLAMA, ["engine"]),
                (_SMOKE, ["engine"]),
                (_LLAMA, ["engine"]),
                (_SMALL, ["engine"]),
                (_SMALL | _ALIAS, ["api"]),
                (_SMALL | _ALIAS | _VERSION, ["api"]),
                ({}, ["engine", "api"]),
            ],
        ),
        ("one-by-one", [(_LLAMA, ["engine"]), (_SMOKE, ["engine"]), ({}, ["engine"])]),
    ],
)
def test_clients_notice_a_pause_at_most(
    board: Board,
    settled: None,
    another: dict[str, str],
    swap: str,
    changes: list[tuple[dict[str, Any], list[str]]],
) -> None:
    """Engine, model, context and chat API are changed in turns, under eight clients."""
    windows = []
    with loaded(board) as load:
        for given, parts in changes:
            before, begun = len(board.history()), time.monotonic()
            if "stack_project" in given:
                given = given | another
            done = play("site.yml", HOST, **given, stack_swap=swap)
            assert done.returncode == 0, done.stdout
            (told,) = board.history()[before:]
            assert (told["outcome"], told["parts"]) == ("committed", parts)
            assert told["beside"] == (swap == "beside" and "engine" in parts)
            assert f"clients waited {told['pause']:.2f} s" in message(done)
            windows.append((begun, time.monotonic(), told))
            seen = len(load.times)
            end = time.monotonic() + 60
            while len(load.times) < seen + 8 and time.monotonic() < end:
                time.sleep(0.1)
    assert load.wrong == []
    assert len(load.times) > 50
    assert set(load.models) == {"smoke", "smollm2-135m"}
    for begun, ended, told in windows:
        print(
            f"{swap}: to {told['provider']} with {told['model']} ({', '.join(told['parts'])}):"
            f" told {told['pause']:.2f} s of pause; no client got a byte for"
            f" {load.silence(begun, ended):.2f} s, and none waited longer than"
            f" {load.wait(begun, ended):.2f} s; {told['seconds']:.1f} s in all"
        )


def test_every_engine_serves_every_board_and_no_weights_move() -> None:
    """The other way round than the inventory has it, with all that a host is tested for."""
    weights = "stat -c '%i %Y %n' /opt/edge-llm/models/*.gguf"
    boards = ("test-jetson-01", "test-pi-01")

    def read() -> list[str]:
        run = ["docker", "exec"]
        return [
            subprocess.check_output([*run, each, "sh", "-c", weights]).decode() for each in boards
        ]

    before = read()
    swapped = {"llm_provider": "{{ 'llamacpp' if inventory_hostname == 'pi-01' else 'ollama' }}"}
    for given in (swapped, {}):
        done = play("site.yml", "all", **given)
        assert done.returncode == 0, done.stdout
        assert read() == before
        if given:
            tests = play("tests/host/run.yml", "all,localhost", **given)
            assert tests.returncode == 0, tests.stdout


def test_the_fleet_stays_as_it_is_where_the_canary_fails(board: Board) -> None:
    before = board.containers(), board.history()
    wrong = {"llm_provider": "llamacpp", "llm_image": images()["ollama"]}
    done = play("site.yml", "all", **wrong)
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert "jetson-01: release" in said
    assert "pi-01: held back as it was, since jetson-01 failed; repair that, and run this" in said
    assert "held back, since jetson-01 failed" in said
    assert (board.containers(), board.history()) == before
    assert board.asked() == known_answers()["smollm2-135m"]
    again = play("site.yml", "all")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == 2


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


def test_a_second_operator_is_told_who_holds_the_host(board: Board) -> None:
    hold = (
        "import fcntl, json, time; f = open('/opt/edge-llm/.lock', 'a+');"
        " fcntl.flock(f, fcntl.LOCK_EX); f.truncate(0);"
        " json.dump({'by': 'alice@laptop', 'since': '2026-11-22T10:00:00Z'}, f);"
        " f.flush(); time.sleep(60)"
    )
    board.run(
        "sh", "-c", f'nohup python3 -c "{hold}" >/dev/null 2>&1 & echo $! > /run/holder; sleep 1'
    )
    done = play("site.yml", HOST, **_LLAMA)
    assert done.returncode == 2, done.stdout
    assert (
        "pi-01: alice@laptop has been changing the host since 2026-11-22T10:00:00Z; run this again"
        " when that has ended."
    ) in message(done)
    assert "changed=0" in done.stdout
    # Its holder dies, and what it has written stays: that is no lock.
    board.run("sh", "-c", "kill -9 $(cat /run/holder); sleep 0.5")
    assert "alice" in board.run("cat", f"{FOLDER}/.lock")
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout


def test_back_to_the_release_before_and_to_a_named_one(board: Board, settled: None) -> None:
    first = board.current()["number"]
    assert play("site.yml", HOST, **_LLAMA).returncode == 0
    with loaded(board) as load:
        done = play("playbooks/rollback.yml", HOST)
        assert done.returncode == 0, done.stdout
        assert board.ready()["provider"] == "ollama"
        assert board.current()["as"] == first
        done = play("playbooks/rollback.yml", HOST, release=board.current()["number"] - 1)
        assert done.returncode == 0, done.stdout
        assert board.ready()["provider"] == "llamacpp"
    assert load.wrong == []
    done = play("playbooks/rollback.yml", HOST, release=4711)
    assert done.returncode == 2
    assert "pi-01: release 4711 was asked, and is not on the host; there are:" in message(done)
    done = play("playbooks/history.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert f"as release {first}" in message(done)
