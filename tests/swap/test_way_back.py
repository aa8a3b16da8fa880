"""A way back that is cut short, at any of its steps, is taken up again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from module_utils.edge_llm_release import RESTORE_STEPS
from tests.playing import play
from tests.swap.conftest import HOST, Board
from tests.swap.cutting import (
    CAME_TO,
    assert_whole,
    change,
    kill,
    power_cut,
    two_releases,
    until,
)

pytestmark = pytest.mark.xdist_group(HOST)


@pytest.fixture(scope="module", autouse=True)
def releases(board: Board) -> Iterator[None]:
    two_releases(board, before="llamacpp")
    yield
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("how", ["killed", "power cut"])
@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_a_way_back_that_is_cut_short_is_taken_up_again(board: Board, step: str, how: str) -> None:
    """By the host's start, or by the next run. Just before `check` everything is the new one's."""
    assert change(board, "check", "one-by-one", f"/root/driver.py '{step}' restore")
    board.run("rm", CAME_TO)
    kill(board)
    until(lambda: board.run("cat", CAME_TO), "a step of the way back")
    assert board.run("cat", CAME_TO) == step
    if how == "killed":
        kill(board)
        done = play("site.yml", HOST)
        assert done.returncode == 0, done.stdout
    else:
        power_cut(board)
    assert_whole(board)
