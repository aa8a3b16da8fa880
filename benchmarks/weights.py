"""`make bench`, third part: how long weights take to come to one board and to eight.

256 MiB go to simulated boards whose links are limited, both ways, with tc; against Ansible's
get_url on each board in the same run. What the source gave is what the sandbox's hub counted.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.rounds import verdict
from sandbox.models import TREE
from tests.integration.weights.conftest import HUB, MIB, File, given, shell
from tests.playing import ROOT, catalogues, command, play, started
from tests.waiting import until

SIZE = 256 * MIB
RATE = "40mbit"
BOARDS = [f"field-{n:02}" for n in range(1, 9)]
PLACE = "edge-llm/bench/resolve/1"
INVENTORY = ("-i", "benchmarks/hosts.yml")
ONE = "one board"
EIGHT = ("eight boards, the control machine brings", "eight boards, one of them brings")
MOST = 2.0
"""How long weights may take to come to eight boards, in times of what one board takes."""
GET_URL = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.get_url: {url: "%s", checksum: "sha256:%s", dest: /srv/bench.gguf}
"""


@dataclass
class Subject:
    """The file, and a catalogue that has it."""

    file: File
    catalogue: Path


def make(folder: Path) -> Subject:
    """Put a GGUF file of that size at the hub: the smoke model's, and what nobody reads."""
    (smoke,) = TREE.glob("edge-llm/smoke/1/*.gguf")
    target = TREE / "edge-llm/bench/1/bench.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        content = smoke.read_bytes()
        part = target.with_suffix(".part")
        part.write_bytes(content + os.urandom(SIZE - len(content)))
        part.rename(target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    entry = yaml.safe_load((ROOT / "models.yml").read_text())["models"]["smoke"]
    weights = entry["gguf"] | {
        "repository": "edge-llm/bench",
        "files": [{"file": "bench.gguf", "size": SIZE, "sha256": digest}],
    }
    made = catalogues(folder, "models.yml", "models/bench", entry | {"gguf": weights})
    return Subject(File("bench", "bench.gguf", SIZE, digest), made)


def limit(board: str) -> None:
    """Limit a board's link: what it sends, and, at this machine's end of it, what it gets."""
    words = f"root tbf rate {RATE} burst 128kb latency 200ms"
    shell(board, f"tc qdisc replace dev eth0 {words}")
    index = int(shell(board, "cat /sys/class/net/eth0/iflink"))
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    (name,) = (
        line.split()[1].partition("@")[0]
        for line in links.splitlines()
        if line.startswith(f"{index}:")
    )
    subprocess.run(["tc", "qdisc", "replace", "dev", name, *words.split()], check=True)


def clean() -> None:
    subprocess.run(["rm", "-rf", ROOT / ".cache/models"], check=True)
    for board in BOARDS:
        shell(board, "rm -rf /srv/bench /srv/bench.gguf")


class Measured:
    """Seconds of a run, and bytes that the source gave for it."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def _timed(self, words: list[str]) -> tuple[float, int]:
        clean()
        before, begun = given(self._subject.file), time.monotonic()
        done = subprocess.run(
            words, cwd=ROOT, env=os.environ | {"SANDBOX": "test"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return time.monotonic() - begun, given(self._subject.file) - before

    def ours(self, hosts: list[str], cache: str) -> tuple[float, int]:
        variables = {
            "llm_model": "bench",
            "board_catalogue_dir": str(self._subject.catalogue),
            "llm_models_cache": cache,
        }
        limits = ",".join(hosts)
        return self._timed(
            command("site.yml", limits, "--tags", "weights", *INVENTORY, **variables)
        )

    def plain(self, hosts: list[str], folder: Path) -> tuple[float, int]:
        playbook = folder / "get_url.yml"
        url = f"{HUB}/{PLACE}/bench.gguf"
        playbook.write_text(GET_URL % (url, self._subject.file.sha256))
        return self._timed(command(str(playbook), ",".join(hosts), *INVENTORY))


def resumed(subject: Subject) -> int:
    """Bytes that were given twice, when the download was killed half way."""
    clean()
    before = given(subject.file)
    variables: dict[str, Any] = {
        "llm_model": "bench",
        "board_catalogue_dir": str(subject.catalogue),
    }
    words = command("site.yml", BOARDS[0], "--tags", "weights", *INVENTORY, **variables)
    run = started(words)
    come = "cat /srv/bench/models/.fetch/*/* 2>/dev/null | wc -c"
    until(
        lambda: int(shell(BOARDS[0], come, check=False) or 0),
        "half of it",
        lambda size: size > SIZE // 2,
        seconds=300,
        every=0.1,
    )
    shell(BOARDS[0], "systemctl kill --signal=KILL 'edge-llm-fetch*'")
    run.communicate()
    if play("site.yml", BOARDS[0], "--tags", "weights", *INVENTORY, **variables).returncode:
        raise SystemExit("the second run failed")
    return given(subject.file) - before - SIZE


def ratios(rows: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Way -> its seconds, in times of those to one board."""
    return {name: seconds / rows[ONE][0] for name, (seconds, _) in rows.items()}


def judge(found: Mapping[str, float]) -> tuple[list[str], int]:
    """Sentences about the ways to eight boards, and the exit status: 1 where one takes too long."""
    sentences = [verdict(name, found[name], MOST, most=True, unit=" times") for name in EIGHT]
    return sentences, int(any(found[name] > MOST for name in EIGHT))


def main() -> int:
    """Measure and print."""
    console = Console()
    folder = ROOT / ".sandbox/bench"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "sandbox", "up", "--hosts", ",".join(BOARDS)],
        cwd=ROOT, env=os.environ | {"SANDBOX": "test"}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    subject = make(folder)
    # What has to be installed once is not what is measured.
    first = play("site.yml", ",".join(BOARDS), "--tags", "weights", *INVENTORY, llm_model="smoke")
    if first.returncode:
        console.print(first.stdout)
        return 1
    for board in BOARDS:
        limit(board)
    measured = Measured(subject)
    one, all_ = BOARDS[:1], BOARDS
    rows = {
        "get_url, one board": measured.plain(one, folder),
        "get_url, eight boards": measured.plain(all_, folder),
        ONE: measured.ours(one, "auto"),
        EIGHT[0]: measured.ours(all_, "localhost"),
        EIGHT[1]: measured.ours(all_, "auto"),
    }
    found = ratios(rows)
    table = Table(title=f"{SIZE // MIB} MiB to boards with {RATE}/s each way")
    for name in ("way", "seconds", "to one board's", "read at the source"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for name, (seconds, read) in rows.items():
        table.add_row(name, f"{seconds:.0f}", f"{found[name]:.2f}", f"{read / SIZE:.2f} times")
    console.print(table)
    console.print(f"Killed half way: {max(0, resumed(subject)) / MIB:.2f} MiB came twice.")
    clean()
    sentences, status = judge(found)
    console.print("\n".join(sentences))
    return status


if __name__ == "__main__":
    sys.exit(main())
