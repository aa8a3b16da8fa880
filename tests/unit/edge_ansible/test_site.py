"""site.yml over a fleet without boards: what a run costs, and which hosts take part in its plays."""

from __future__ import annotations

import re
import subprocess

from .conftest import Fleet, in_place


def recap(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """The counts of each host at the end of a run."""
    lines = done.stdout.partition("PLAY RECAP")[2].splitlines()[1:]
    return {
        line.split()[0]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
        for line in lines
        if "ok=" in line
    }


def test_a_fleet_in_place_costs_one_call_and_one_task_for_each_host(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, in_place(fleet.planned))
    done = fleet.run()
    assert done.returncode == 0, done.stdout
    print(done.stdout)
    assert sorted(each["host"] for each in fleet.calls()) == ["a", "b", "c"]
    assert 0
