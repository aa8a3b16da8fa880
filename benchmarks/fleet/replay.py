"""The control machine alone: hundreds of hosts, whose side is a recording of one real host.

SSH (`ssh.py`) and the chat API (`answers.py`) are replaced by stand-ins that answer what the host
answered, after the time that it took. The stand-in of ssh takes about the CPU that ssh takes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleet import answers, running
from benchmarks.fleet.figures import REPLAYED, Run, Subject
from benchmarks.fleet.names import Host, inventory
from benchmarks.fleet.usage import Usage

STAND_IN = Path(__file__).with_name("ssh.py")
_NETWORK = "198.19"
"""Nobody is there, and nobody is asked (RFC 2544)."""


def hosts(count: int, board: str) -> list[Host]:
    """Names and addresses that nothing stands behind."""
    return [
        Host(f"replay-{number:03}", board, f"{_NETWORK}.{number // 250}.{number % 250 + 1}")
        for number in range(1, count + 1)
    ]


def calls_of(folder: Path, addresses: Sequence[str]) -> tuple[dict[str, int], int]:
    """The calls of each address, and the bytes of all, as the stand-in wrote them down."""
    counts, sent = {}, 0
    for address in addresses:
        kept = folder / address
        numbers = [int(line) for line in kept.read_text().splitlines()] if kept.exists() else []
        counts[address] = len(numbers)
        sent += sum(numbers)
    return counts, sent


class Replay:
    """A recording of one host, and runs of many against it."""

    def __init__(self, folder: Path, shared: Path, instance: str, real: Host) -> None:
        """`shared` is the folder of keys, facts and host keys; `real` is the host to record."""
        self._folder = folder
        self._shared = shared
        self._instance = instance
        self._real = real
        self._http = answers.Recording((shared / "keys" / f"{real.board}.key").read_text().strip())

    def record(self) -> None:
        """Run site.yml on the host twice, and keep what it answers the second time."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        host = Host("replay-001", self._real.board, self._real.address)
        with answers.serving(self._http, upstream=f"{self._real.address}:8000") as url:
            self._play([host], url, expected=None)
            self._http.answers.clear()
            self._play(
                [host],
                url,
                ansible_ssh_executable=str(STAND_IN),
                environment={"FLEET_SSH_RECORD": str(self._folder)},
            )

    def run(self, count: int, rounds: int) -> Subject:
        """Run site.yml over so many hosts, after a run that makes their files here."""
        many = hosts(count, self._real.board)
        runs = []
        with answers.serving(self._http) as url:
            self._answered(many, url, first=True)
            runs = [self._answered(many, url) for _ in range(rounds)]
        return Subject(REPLAYED, count, 0, tuple(runs))

    def _answered(self, many: Sequence[Host], url: str, *, first: bool = False) -> Run:
        counted = self._folder / "hosts"
        shutil.rmtree(counted, ignore_errors=True)
        counted.mkdir()
        used = self._play(
            many,
            url,
            expected=None if first else running.NOTHING,
            ansible_ssh_executable=str(STAND_IN),
            environment={"FLEET_SSH_ANSWER": str(self._folder)},
        )
        by_address, sent = calls_of(counted, [host.address for host in many])
        calls = {host.name: by_address[host.address] for host in many}
        return Run(used.seconds, used.cpu, used.peak, used.ssh, calls, sent)

    def _play(
        self,
        many: Sequence[Host],
        url: str,
        *,
        expected: running.Expected | None = running.NOTHING,
        environment: dict[str, str] | None = None,
        **variables: str,
    ) -> Usage:
        written = self._folder / "inventory.yml"
        made = inventory(many, self._shared)
        made["all"]["children"]["fleet"]["vars"] |= variables | {"board_url": url}
        # JSON is YAML.
        written.write_text(json.dumps(made, indent=1))
        return running.play(
            "site.yml",
            written,
            [host.name for host in many],
            self._folder / "stats.json",
            self._instance,
            expected=expected,
            **environment or {},
        )
