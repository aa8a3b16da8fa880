"""What an operator changes: the engine of a board under load, and a misspelled variable."""

from __future__ import annotations

from tests.integration.load import assert_a_pause_at_most, board_named
from tests.playing import message, play


def test_the_engine_is_swapped_without_a_failed_request() -> None:
    changes = [({"llm_provider": "llamacpp"}, ["engine"]), ({}, ["engine"])]
    assert_a_pause_at_most(board_named("pi-01"), "beside", changes)


def test_an_unknown_engine_is_refused_and_the_one_that_serves_stays() -> None:
    board = board_named("pi-01")
    before = board.containers(), board.history()
    done = play("site.yml", "pi-01", llm_provider="lamacpp")
    assert done.returncode == 2, done.stdout
    assert "llm_provider is invalid: 'lamacpp'. Did you mean llamacpp?" in message(done)
    assert "changed=0" in done.stdout
    assert (board.containers(), board.history()) == before
