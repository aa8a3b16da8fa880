"""A power cut loses what was not flushed to the disk; the board serves a whole release anyway."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox import vm
from sandbox.errors import SandboxError
from tests.system.vm.conftest import FOLDER, ONBOARD, OTHER, Board, Provisioned, known_answer
from tests.system.vm.cuts import Cut, find_problems, select_cuts

# What need not be on the disk when a change has ended: who holds the lock.
_PASSING = {"write .lock"}


def test_the_virtual_board_is_provisioned_as_any_other(provisioned: Provisioned) -> None:
    for status, said in provisioned.runs:
        assert status == 0, said
    assert "changed=0" in provisioned.runs[1][1]


def test_a_cut_right_after_the_first_run(board: Board, provisioned: Provisioned) -> None:
    """What site.yml installed is on the disk by then: images, weights, keys, the program."""
    kept = {"current": "0001", "journal": False, "releases": ["0001"], "history": 1}
    problems = served(board, Cut("run", "site.yml", kept, provisioned.cuts["end"]))
    board.machine.cut()
    assert problems == []


@pytest.mark.parametrize("moment", ["files", "images"])
def test_a_first_run_that_is_cut_short_is_taken_up_again(
    board: Board, provisioned: Provisioned, moment: str
) -> None:
    """Its files may be empty after the cut; the next run must not use them as they are."""
    board.machine.switch_on(provisioned.cuts[moment])
    # While Docker starts, its ports are taken and nobody can say by whom: site.yml refuses that.
    board.machine.wait_for_docker()
    status, said = board.play()
    answer = board.asked() if status == 0 else ""
    board.machine.cut()
    assert status == 0, said
    assert answer == known_answer()


def test_a_cut_at_every_write_of_a_change(board: Board, provisioned: Provisioned) -> None:
    """One change is stopped at every write; the board starts from the disk of each such moment."""
    cuts, end = change(board, provisioned.disk)
    assert end["name"] == "committed", end
    assert set(end["left"]) <= _PASSING, f"not on the disk when the change ended: {end['left']}"
    chosen = select_cuts(cuts)
    print(f"{len(cuts)} stops, {len(chosen)} cuts", flush=True)
    problems = {}
    for cut in chosen:
        found = served(board, cut)
        board.machine.cut()
        if found:
            problems[str(cut)] = found
    assert problems == {}
    # What the last start went on from is a host like any other.
    board.start(chosen[-1].disk)
    runs = [board.play(OTHER), board.play(OTHER)]
    board.machine.switch_off()
    for status, said in runs:
        assert status == 0, said
    assert "changed=0" in runs[1][1]


def change(board: Board, base: Path) -> tuple[list[Cut], dict[str, Any]]:
    """Have the board change over; a copy of its disk at every stop, and how it ended.

    A copy that is taken while QEMU is held is, byte for byte, what a SIGKILL of it would leave; at
    the end it gets that SIGKILL.
    """
    disk = vm.overlay(base, FOLDER / "change.qcow2")
    board.start(disk)
    board.bring()
    cuts: list[Cut] = []
    words = ["timeout", "1800", *board.machine.ssh(f"python3 -u {ONBOARD} change")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as program:
        assert program.stdin
        assert program.stdout
        for line in program.stdout:
            stop = json.loads(line)
            if stop["kind"] == "end":
                break
            kept = {name: stop[name] for name in ("current", "journal", "releases", "history")}
            copy = board.copy(disk, f"cut-{len(cuts):02}")
            cuts.append(Cut(stop["kind"], stop["name"], kept, copy))
            program.stdin.write("\n")
        else:
            raise AssertionError(f"the change ended without a word after {cuts[-1:]}")
        board.machine.cut()
    return cuts, stop


def served(board: Board, cut: Cut) -> list[str]:
    """Start the board from a cut's disk; what is wrong with it then."""
    begun = time.monotonic()
    try:
        seconds = board.start(cut.disk)
        answer = board.asked()
        found = board.look()
    except SandboxError as error:
        print(f"cut {cut}: {error}", flush=True)
        return [str(error)]
    problems = find_problems(cut, found, answer, known_answer())
    print(
        f"cut {cut}: ready after {seconds:.0f} s, looked at after {time.monotonic() - begun:.0f} s;"
        f" release {found['current']}, {found['last']['action']}; {problems or 'well'}",
        flush=True,
    )
    return problems
