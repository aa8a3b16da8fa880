"""What the benchmark runs, and what it expects of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.fleet import __main__ as main
from benchmarks.fleet import figures, names, running
from benchmarks.fleet.figures import Run
from benchmarks.fleet.names import Host
from benchmarks.fleet.usage import Usage
from sandbox.instance import Instance

USED = Usage(0, "", 1.0, 2.0, 3.0, 4.0)


@dataclass
class Boards:
    """Boards that keep what is done to them."""

    names: list[str]
    drifted: list[list[str]] = field(default_factory=list)

    def drift(self, boards: Sequence[str]) -> None:
        self.drifted.append(list(boards))


@dataclass
class Played:
    """A run of a playbook: its hosts, further words, and what was expected."""

    playbook: str
    hosts: list[str]
    words: tuple[str, ...]
    expected: running.Expected | None


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    found: list[Played] = []

    def play(
        playbook: str, inventory: Path, hosts: list[str], stats: Path, instance: str, *words: str,
        expected: running.Expected | None = running.NOTHING, **further: str,
    ) -> Usage:  # fmt: skip
        found.append(Played(Path(playbook).name, hosts, words, expected))
        return USED

    def pyinfra(inventory: Path, *, converged: bool) -> Usage:
        expected = running.NOTHING if converged else None
        found.append(Played("pyinfra", [], (), expected))
        return USED

    def observed(boards: Any, hosts: Any, act: Any) -> Run:
        used = act()
        return Run(used.seconds, used.cpu, used.peak, used.ssh, {}, 0)

    monkeypatch.setattr(running, "play", play)
    monkeypatch.setattr(running, "pyinfra", pyinfra)
    monkeypatch.setattr(running, "observed", observed)
    return found


def bench(folder: Path, boards: Boards, count: int) -> main.Bench:
    hosts: list[Host] = names.fleet(count, boards.names, "198.18.41")
    given: Any = boards
    return main.Bench(Instance("test"), given, hosts, names.silent("198.18.41"), folder)


def test_each_size_has_all_its_runs(tmp_path: Path, played: list[Played]) -> None:
    boards = Boards(["a", "b", "c"])
    made = bench(tmp_path, boards, 5)
    made.measure(5, rounds=2)
    every = [f"fleet-0{number}" for number in range(1, 6)]
    steady = played[:6]
    assert [each.playbook for each in steady] == ["site.yml", "pyinfra", "playbook.yml"] * 2
    assert all(each.expected == running.NOTHING for each in steady)
    assert steady[0].hosts == every
    there, back, drifted, down = played[6:]
    changed = running.Expected(changed=frozenset({"fleet-01"}))
    assert there.expected == back.expected == changed
    assert there.hosts == back.hosts == every
    assert [each.words for each in (there, back)] == [
        ("-e", '{"fleet_contexts": {"fleet-01": 4096}}'),
        ("-e", '{"fleet_contexts": {"fleet-01": 2048}}'),
    ]
    # One name for each board, and all of them change.
    assert boards.drifted == [["a", "b", "c"]]
    assert drifted.hosts == every[:3]
    assert drifted.expected == running.Expected(changed=frozenset(every[:3]))
    assert down.hosts == [*every[:4], "fleet-down"]
    assert down.expected == running.Expected(down=frozenset({"fleet-down"}))
    assert [(each.name, each.hosts, each.boards, len(each.runs)) for each in made.subjects] == [
        (figures.NO_CHANGE, 5, 3, 2),
        (figures.PYINFRA, 5, 3, 2),
        (figures.PLAYBOOK, 5, 3, 2),
        (figures.CHANGED, 5, 3, 2),
        (figures.DRIFTED, 3, 3, 1),
        (figures.DOWN, 5, 3, 1),
    ]


def test_names_of_one_board_do_not_change_it_for_each_other(
    tmp_path: Path, played: list[Played]
) -> None:
    made = bench(tmp_path, Boards(["a"]), 3)
    made.measure(3, rounds=1)
    assert figures.CHANGED not in [each.name for each in made.subjects]
    made.measure_change_alone()
    assert played[-1].hosts == ["fleet-01"]


def test_boards_are_converged_by_one_name_each(tmp_path: Path, played: list[Played]) -> None:
    bench(tmp_path, Boards(["a", "b"]), 4).converge()
    assert [(each.playbook, len(each.hosts), each.expected) for each in played] == [
        ("site.yml", 2, None),
        ("site.yml", 4, None),
        ("pyinfra", 0, None),
        ("playbook.yml", 2, None),
    ]


@pytest.mark.parametrize("sizes", ["twenty", "0", "2,500", ""])
def test_sizes_that_cannot_be_measured_are_refused(
    sizes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main.parsed([f"--hosts={sizes}"])
    assert f"--hosts is invalid: {sizes}. Give " in capsys.readouterr().err


def test_the_report_says_how_it_was_measured(tmp_path: Path, played: list[Played]) -> None:
    made = bench(tmp_path, Boards(["a", "b"]), 20)
    made.measure(20, rounds=1)
    console = Console(width=200, record=True)
    main.report(console, made)
    text = " ".join(console.export_text().split())
    assert "No change on 20 hosts, against pyinfra's small job: 1 s; wanted: at most 1 s" in text
    assert "Each run opens its SSH connections anew." in text


def test_a_run_that_did_something_else_ends_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason and the end of the output."""
    (tmp_path / "site.json").write_text(
        '{"fleet-01": {"changed": 2, "failures": 0, "unreachable": 0}}'
    )

    def measured(words: Any, cwd: Path, environment: dict[str, str], limit: float = 0) -> Usage:
        Path(environment["FLEET_STATS"]).write_text((tmp_path / "site.json").read_text())
        return Usage(0, "TASK [Deploy]\nchanged: [fleet-01]", 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(running, "measured", measured)
    with pytest.raises(running.RunError) as error:
        running.play("site.yml", tmp_path, ["fleet-01"], tmp_path / "stats.json", "test")
    assert str(error.value) == (
        "site.yml: fleet-01: 2 tasks changed something.\n  | TASK [Deploy]\n  | changed: [fleet-01]"
    )
