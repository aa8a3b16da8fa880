"""Changes of several boards in one run."""

from __future__ import annotations

import subprocess

from tests.integration.load import Board, known_answers
from tests.playing import images, message, play


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
            tests = play("tests/system/hosts/run.yml", "all,localhost", **given)
            assert tests.returncode == 0, tests.stdout


def test_the_fleet_stays_as_it_is_where_the_canary_fails(board: Board) -> None:
    before = board.containers(), board.history()
    wrong = {"llm_provider": "llamacpp", "llm_image": images()["ollama"]}
    done = play("site.yml", "all", **wrong)
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert "jetson-01: release" in said
    assert "pi-01: held back, since jetson-01 failed. Repair jetson-01, and run this again." in said
    assert "held back, since jetson-01 failed" in said
    assert (board.containers(), board.history()) == before
    assert board.asked() == known_answers()["smollm2-135m"]
    again = play("site.yml", "all")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == 2
