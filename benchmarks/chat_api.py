"""`make bench`: what the chat API costs, against the engine behind it, in one run and by turns.

Three models on llama-server: `smoke` (short answers: the cost of a request), `endless` (long ones:
the cost of a token) and SmolLM2 (a real engine's pace). All of it runs on this machine's cores,
engine, chat API and the load itself: what the chat API takes, the engine does not get.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llm_provider.cli.bench import Address, Level, Load, Watcher, bench
from llm_provider.cli.check import DEFAULT_PROMPT
from tests.integration.engines import running
from tests.integration.engines.conftest import LOCK, House
from tests.integration.engines.serving import KEY, Served

PROVIDER = "llamacpp"
LEVELS = (1, 4, 32)


@dataclass(frozen=True)
class Subject:
    """A model, and how much is asked of it at each level."""

    model: str
    requests: int
    max_tokens: int
    prompt: str = DEFAULT_PROMPT


SUBJECTS = (
    Subject("smoke", 480, 64),
    Subject("endless", 96, 128),
    # An answer as long as people's: eight tokens about France tell of the prompt, not of the pace.
    Subject("smollm2-135m", 32, 128, "Write a story about a lighthouse keeper and his cat."),
)


class _Meter(Watcher):
    """Adds a row for each level, with the CPU time that the chat API took in it."""

    def __init__(self, table: Table, subject: Subject, pid: int, console: Console) -> None:
        self._table, self._subject, self._pid, self._console = table, subject, pid, console
        self._before = cpu_seconds(pid)

    def level(self, result: Level) -> None:
        now = cpu_seconds(self._pid)
        used, self._before = now - self._before, now
        side, added, ratio = result.url, result.added_ttft, result.throughput_ratio
        direct = result.compare.throughput if result.compare else None
        self._table.add_row(
            self._subject.model,
            str(result.parallel),
            str(side.failed + (result.compare.failed if result.compare else 0)),
            *(f"{seconds * 1000:.2f} ms" for seconds in added or ()),
            f"{used / side.requests * 1000:.2f} ms",
            f"{used / side.tokens * 1e6:.0f} µs" if side.tokens else "-",
            f"{direct:.0f}/s" if direct else "-",
            f"{ratio:.3f}" if ratio else "-",
        )
        self._console.print(f"{self._subject.model}, {result.parallel} at once: done")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> float:
    """The most memory that a process has had, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/{pid}/status does not tell VmHWM.")


async def measure(subject: Subject, served: Served, table: Table, console: Console) -> int:
    """Put the load on both sides; returns how many requests failed."""
    key_file = served.engine.key_file
    result = await bench(
        Load(subject.requests, LEVELS, subject.prompt, subject.max_tokens, seconds=120),
        Address(served.api.base_url, KEY),
        Address(served.engine.base_url, key_file.read_text().strip() if key_file else None),
        model=subject.model,
        watcher=_Meter(table, subject, served.api.pid, console),
    )
    return result.failed


def main() -> int:
    """Measure and print; returns 1 if a request failed."""
    console = Console()
    table = Table(title="The chat API against llama-server, direct")
    for name in (
        *("model", "at once", "failed", "added TTFT p50", "p95", "CPU a request", "a token"),
        *("direct", "throughput"),
    ):
        table.add_column(name, justify="left" if name == "model" else "right")
    if lack := running.missing():
        console.print(lack)
        return 1
    failed, memory = 0, 0.0
    with LOCK.open("w") as lock, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        house = House(Path(folder))
        try:
            for subject in SUBJECTS:
                served = house.served(PROVIDER, subject.model)
                failed += asyncio.run(measure(subject, served, table, console))
                memory = max(memory, peak_memory(served.api.pid))
                house.close()
        finally:
            house.close()
    console.print(table)
    console.print(f"Memory of the chat API, at most: {memory:.0f} MB.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
