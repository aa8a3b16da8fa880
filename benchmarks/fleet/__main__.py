"""`make bench-fleet`: what a run of site.yml costs, by the number of hosts, against other tools.

Measured on simulated boards, as many as memory allows; where there are fewer than hosts, further
names stand for the same boards, each with an address of its own, so that none shares an SSH
connection. `--replayed` hosts have no board at all: the control machine alone is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.fleet import figures, names, running
from benchmarks.fleet.boards import Boards
from benchmarks.fleet.names import Host
from benchmarks.fleet.replay import Replay
from benchmarks.fleet.usage import Usage
from sandbox.docker import inspect
from sandbox.errors import SandboxError
from sandbox.instance import DEFAULT_HOSTS, HOSTS, STATE, Instance

BOARDS = (*DEFAULT_HOSTS, *(name for name in HOSTS if name.startswith("field-")))
SIZES = "2,5,10,20,40"


class Bench:
    """All measurements over one fleet; `folder` holds its inventory, keys and facts."""

    def __init__(
        self, instance: Instance, boards: Boards, hosts: list[Host], silent: Host, folder: Path
    ) -> None:
        self._instance = instance
        self._boards = boards
        self._hosts = hosts
        self._silent = silent
        self._folder = folder
        self.subjects: list[figures.Subject] = []

    def converge(self) -> None:
        """Bring every board to what is measured afterwards, and every name's files here."""
        first = names.first_of_each_board(self._hosts)
        self._site(first, expected=None)
        self._site(self._hosts, expected=None)
        self._pyinfra(first, converged=False)
        self._small_job(first, expected=None)

    def measure(self, size: int, rounds: int) -> None:
        """Measure everything at one size of the fleet."""
        hosts = self._hosts[:size]
        steady: dict[str, Callable[[], Usage]] = {
            figures.NO_CHANGE: lambda: self._site(hosts),
            figures.PYINFRA: lambda: self._pyinfra(hosts, converged=True),
            figures.PLAYBOOK: lambda: self._small_job(hosts),
        }
        runs: dict[str, list[figures.Run]] = {name: [] for name in steady}
        # By turns: what else the machine does meets all of them.
        for _ in range(rounds):
            for name, act in steady.items():
                runs[name].append(running.observed(self._boards, hosts, act))
        for name, found in runs.items():
            self._add(name, hosts, found)
        if size == 1 or len(self._boards.names) > 1:
            self._changes(figures.CHANGED, hosts)
        self._drift(hosts)
        down = [*hosts[:-1], self._silent]
        expected = running.Expected(down=frozenset({self._silent.name}))
        run = running.observed(self._boards, hosts, lambda: self._site(down, expected=expected))
        self._add(figures.DOWN, down, [run])

    def measure_change_alone(self) -> None:
        """Measure the change of the first host without any other."""
        self._changes(figures.ALONE, self._hosts[:1])

    def _changes(self, name: str, hosts: list[Host]) -> None:
        """The first host changes, and changes back."""
        changing, runs = hosts[0], []
        expected = running.Expected(changed=frozenset({changing.name}))
        for context in reversed(names.CONTEXTS):
            words = ("-e", names.contexts(changing, context))

            def act(words: tuple[str, str] = words) -> Usage:
                return self._site(hosts, *words, expected=expected)

            runs.append(running.observed(self._boards, hosts, act))
        self._add(name, hosts, runs)

    def _drift(self, hosts: list[Host]) -> None:
        """A file was changed by hand on each board; a second name would find it restored."""
        first = names.first_of_each_board(hosts)
        expected = running.Expected(changed=frozenset(host.name for host in first))
        self._boards.drift([host.board for host in first])
        run = running.observed(self._boards, first, lambda: self._site(first, expected=expected))
        self._add(figures.DRIFTED, first, [run])

    def replayed(self, count: int, rounds: int) -> None:
        """Measure the control machine alone."""
        replay = Replay(self._folder / "replay", self._folder, self._instance.name, self._hosts[0])
        replay.record()
        self.subjects.append(replay.run(count, rounds))

    def profile(self) -> str:
        """The tasks of a run without a change over all hosts, by the time that they take."""
        used = running.play(
            "site.yml",
            self._folder / "hosts.yml",
            [host.name for host in self._hosts],
            self._folder / "stats.json",
            self._instance.name,
            ANSIBLE_CALLBACKS_ENABLED=running.callbacks("ansible.posix.profile_tasks"),
        )
        return used.output.rpartition("TASKS RECAP")[2].partition("\n")[2]

    def _add(self, name: str, hosts: list[Host], runs: list[figures.Run]) -> None:
        boards = len({host.board for host in hosts} & set(self._boards.names))
        self.subjects.append(figures.Subject(name, len(hosts), boards, tuple(runs)))

    def _site(
        self,
        hosts: list[Host],
        *words: str,
        expected: running.Expected | None = running.NOTHING,
    ) -> Usage:
        return self._play("site.yml", hosts, *words, expected=expected)

    def _small_job(
        self, hosts: list[Host], *, expected: running.Expected | None = running.NOTHING
    ) -> Usage:
        return self._play(str(running.SMALL_JOB / "playbook.yml"), hosts, expected=expected)

    def _play(
        self, playbook: str, hosts: list[Host], *words: str, expected: running.Expected | None
    ) -> Usage:
        return running.play(
            playbook,
            self._folder / "hosts.yml",
            [host.name for host in hosts],
            self._folder / "stats.json",
            self._instance.name,
            *words,
            expected=expected,
        )

    def _pyinfra(self, hosts: list[Host], *, converged: bool) -> Usage:
        inventory = self._folder / "pyinfra_hosts.py"
        inventory.write_text(names.pyinfra_inventory(hosts, self._folder, self._instance.key))
        return running.pyinfra(inventory, converged=converged)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--hosts", default=SIZES, help=f"sizes of the fleet (default {SIZES})")
    parser.add_argument("--boards", type=int, help="boards at most (default: what memory allows)")
    parser.add_argument("--rounds", type=int, default=3, help="runs without a change (default 3)")
    parser.add_argument(
        "--replayed", type=int, default=200, help="hosts of the control machine alone; 0: none"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print what takes the time where nothing changes"
    )
    asked = parser.parse_args(arguments)
    try:
        asked.sizes = sorted({int(word) for word in asked.hosts.split(",")})
    except ValueError:
        parser.error(f"--hosts is invalid: {asked.hosts}. Give numbers, such as {SIZES}.")
    if not 1 <= asked.sizes[0] <= asked.sizes[-1] <= names.MOST_HOSTS:
        parser.error(f"--hosts is invalid: {asked.hosts}. Give 1 to {names.MOST_HOSTS} hosts.")
    return asked


def board_count(instance: Instance, size: int, most: int | None) -> int:
    """How many boards there will be."""
    wanted = min(size, most or size, len(BOARDS))
    found = [inspect("container", instance.container(name)) for name in BOARDS[:wanted]]
    running = sum(bool(each and each["State"]["Running"]) for each in found)
    lines = Path("/proc/meminfo").read_text().splitlines()
    (free,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    disk = shutil.disk_usage("/var/lib").free
    return names.boards_that_fit(wanted, running, free / 1024, disk / 2**20)


def report(console: Console, bench: Bench) -> None:
    """Print all figures and what is judged."""
    table = Table(title="A run over a fleet")
    for column in figures.COLUMNS:
        table.add_column(column, justify="left" if column == "run" else "right")
    for subject in bench.subjects:
        table.add_row(*figures.row(subject))
    console.print(table)
    console.print(
        "wall, CPU, calls, bytes: medians; slowest, memory and most calls: the worst. Each run"
        " opens its SSH connections anew. CPU (user and system) and memory are those of the"
        " control machine's processes; calls are SSH sessions by the boards' logs; bytes are those"
        " on the boards' links, both ways. Of replayed hosts, calls and bytes are those of the"
        " stand-in of ssh. Its memory is not judged: that of SSH is, as measured for real hosts."
    )
    for sentence in figures.verdicts(bench.subjects):
        console.print(sentence)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 1 where a run was not what is to be measured."""
    asked = parsed(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    instance = Instance.from_environment({"SANDBOX": "test"} | os.environ)
    size = asked.sizes[-1]
    boards = Boards(instance, BOARDS[: board_count(instance, size, asked.boards)])
    subnet = instance.subnet.rpartition(".")[0]
    hosts, silent = names.fleet(size, boards.names, subnet), names.silent(subnet)
    console.print(
        f"{len(boards.names)} simulated boards for {size} hosts."
        + (
            " Further names stand for the same boards, each with an address of its own."
            if len(boards.names) < size
            else ""
        )
    )
    folder = STATE / "bench/fleet"
    for each in (folder, folder / "keys", folder / "facts"):
        each.mkdir(parents=True, exist_ok=True)
    bench = Bench(instance, boards, hosts, silent, folder)
    try:
        boards.start()
        (folder / "hosts.yml").write_text(
            json.dumps(names.inventory([*hosts, silent], folder), indent=1)
        )
        (folder / "known_hosts").write_text(names.known_hosts(hosts, boards.host_keys()))
        with boards.standing_for(hosts, silent):
            bench.converge()
            for each in asked.sizes:
                bench.measure(each, asked.rounds)
            bench.measure_change_alone()
            if asked.profile:
                console.print(bench.profile(), markup=False)
            if asked.replayed:
                bench.replayed(asked.replayed, asked.rounds)
    except (running.RunError, SandboxError, OSError) as error:
        console.print(str(error), markup=False)
        report(console, bench)
        return 1
    (folder / "results.json").write_text(
        json.dumps([asdict(subject) for subject in bench.subjects], indent=1)
    )
    report(console, bench)
    return 0


if __name__ == "__main__":
    sys.exit(main())
