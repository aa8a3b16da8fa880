"""`make bench`: what the chat API costs over the engine behind it, and what it stands.

    python -m benchmarks.chat_api [compare|quarter|load|attacks ...]

Without arguments all parts run. `compare` puts the same load, by turns in one run, on llama-server
itself, on this chat API, on an earlier one (`candidates.BEFORE`) and on llama-swap; `quarter`
does so with a quarter of a core for each of them. Three models: `smoke` (short answers: the cost of
a request), `endless` (long ones: the cost of a token) and SmolLM2, whose pace is a board's. The
load, the engine and what is measured share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import attacks, candidates, llama_swap, load
from benchmarks.process import memory
from benchmarks.rounds import (
    TARGET_IDLE,
    TARGET_RATIO,
    TARGET_TTFT,
    Side,
    measure,
    row,
    verdict,
)
from llm_provider.cli.bench import Address, Load
from llm_provider.cli.check import DEFAULT_PROMPT
from sandbox.instance import ROOT
from tests.integration.engines import running
from tests.integration.engines.conftest import LOCK, House
from tests.integration.engines.running import REAL, EngineUnderTest

PROVIDER = "llamacpp"
LEVELS = (1, 4, 32)
THIS, BEFORE, DIRECT = "chat API", "chat API before", "engine"
ENGINES = ("llamacpp", "ollama")


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
    Subject(REAL, 64, 128, "Write a story about a lighthouse keeper and his cat."),
)


class Run:
    """One run: what is started for it, its tables, its failed requests."""

    def __init__(self, folder: Path, house: House, console: Console) -> None:
        self.folder, self.house, self.console = folder, house, console
        self.failed = 0
        self.verdicts: list[str] = []
        self._images: dict[str, Callable[..., candidates.Candidate]] = {}

    def compare(self, cpus: float | None = None) -> None:
        """Measure all candidates with all models."""
        share = f", each with {cpus:g} of a core" if cpus else ""
        table = _table(
            f"Over llama-server itself{share}",
            *("model", "at once", "through", "failed", "requests", "added TTFT p50", "p95"),
            *("CPU a request", "a token", "throughput", "to the engine's"),
        )
        for subject in SUBJECTS:
            engine = self._engine(PROVIDER, subject.model)
            with ExitStack() as stack:
                stack.callback(engine.remove)
                made = [
                    each for name in self._starts() if (each := self._start(name, engine, cpus))
                ]
                for each in made:
                    stack.callback(each.remove)
                for parallel in LEVELS:
                    sides = [_direct(engine)] + [
                        Side(each.name, Address(each.base_url, each.key), each.pid) for each in made
                    ]
                    asked = Load(
                        subject.requests, (), subject.prompt, subject.max_tokens, seconds=120
                    )
                    asyncio.run(measure(asked, subject.model, parallel, sides))
                    self._tell(table, subject, parallel, sides, share)
                for each in made:
                    rss = memory(each.pid)
                    self.console.print(f"{subject.model}, idle: {each.name} has {rss:.1f} MiB.")
                    if each.name == THIS:
                        what = f"idle RSS after {subject.model}{share}"
                        self.verdicts.append(
                            verdict(what, rss, TARGET_IDLE, most=True, unit=" MiB")
                        )
        self.console.print(table)

    def _start(
        self, name: str, engine: EngineUnderTest, cpus: float | None
    ) -> candidates.Candidate | None:
        """Start a candidate; None: one of those compared with does not start, and is named."""
        try:
            return self._starts()[name](engine, cpus)
        except OSError as error:
            if name == THIS:
                raise
            self.verdicts.append(f"{engine.model}, not compared with {name}: {error}")
            return None

    def _tell(
        self, table: Table, subject: Subject, parallel: int, sides: list[Side], share: str
    ) -> None:
        direct = sides[0].tally
        for side in sides:
            table.add_row(subject.model, str(parallel), *row(side, direct))
            if side.name in (THIS, DIRECT):
                self.failed += side.tally.failed
            for words, count in side.tally.failures.items():
                self.console.print(f"{side.name}: {count} x {words}")
        self.console.print(f"{subject.model}, {parallel} at once{share}: done")
        if subject.model == REAL:
            (mine,) = (side for side in sides if side.name == THIS)
            what = f"{REAL}, {parallel} at once{share}"
            added = mine.added_ttft(direct)
            self.verdicts += [
                verdict(
                    f"{what}, added TTFT p50", None if added is None else added * 1000,
                    TARGET_TTFT * 1000, most=True, unit=" ms",
                ),
                verdict(f"{what}, throughput", mine.ratio(direct), TARGET_RATIO, most=False),
            ]  # fmt: skip

    def load(self) -> None:
        """2,000 streamed requests on each engine."""
        table = _table("Streamed requests", "engine", "at once", "requests", "failed", "failures")
        image = candidates.image_of(ROOT)
        for name in ENGINES:
            engine = self._engine(name, "smoke")
            api = candidates.chat_api(THIS, image, engine, self.folder)
            try:
                result = load.run(Address(api.base_url, api.key), engine.model)
            finally:
                api.remove()
                engine.remove()
            self.failed += result.failed
            for cells in load.rows(name, result):
                table.add_row(*cells)
            if wrong := load.complaint(result):
                self.verdicts.append(f"{name}: {wrong}")
        self.console.print(table)

    def attacks(self) -> None:
        """What attacks do to the chat API, and to another client."""
        table = _table(
            "Attacks, and a client with another key",
            *("attack", "most RSS", "the other's TTFT p50", "most", "requests", "failed"),
        )
        engine = self._engine(PROVIDER, "smoke")
        api = candidates.chat_api(THIS, candidates.image_of(ROOT), engine, self.folder)
        try:
            for each in asyncio.run(attacks.run(api)):
                table.add_row(*each.row())
                self.failed += each.failed
                self.verdicts.append(
                    verdict(
                        f"RSS, {each.name}", each.peak, attacks.RSS_LIMIT, most=True, unit=" MiB"
                    )
                )
                for words, count in [*each.failures.items(), *each.own.items()]:
                    self.console.print(f"{each.name}: {count} x {words}")
        finally:
            api.remove()
            engine.remove()
        self.console.print(table)

    def _engine(self, name: str, model: str) -> EngineUnderTest:
        """Start an engine; the first candidate before it waits until it is ready."""
        made = self.house.engine(name, model)
        made.start()
        return made

    def _starts(self) -> dict[str, Callable[..., candidates.Candidate]]:
        """Return how the candidates are started; those that cannot be made are named, once."""
        if self._images:
            return self._images

        def api(name: str, image: str) -> Callable[..., candidates.Candidate]:
            return lambda engine, cpus: candidates.chat_api(name, image, engine, self.folder, cpus)

        self._images[THIS] = api(THIS, candidates.image_of(ROOT))
        try:
            self._images[BEFORE] = api(BEFORE, candidates.image_before())
        except OSError as error:
            self.verdicts.append(f"Not compared with the chat API before: {error}")
        try:
            binary = llama_swap.build()
        except OSError as error:
            self.verdicts.append(f"Not compared with llama-swap: {error}")
        else:
            self._images["llama-swap"] = lambda engine, cpus: candidates.before_engine_llama_swap(
                binary, engine, self.folder, cpus
            )
        return self._images


def _direct(engine: EngineUnderTest) -> Side:
    key = engine.key_file.read_text().strip() if engine.key_file else None
    return Side(DIRECT, Address(engine.base_url, key))


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title)
    for number, name in enumerate(columns):
        made.add_column(name, justify="left" if number == 0 else "right")
    return made


PARTS: dict[str, Callable[[Run], None]] = {
    "compare": Run.compare,
    "quarter": lambda run: run.compare(candidates.QUARTER),
    "load": Run.load,
    "attacks": Run.attacks,
}


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns 1 if a request of the chat API or of the engine failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat_api", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args(argv).parts or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    console = Console()
    if lack := running.missing():
        console.print(lack)
        return 1
    with LOCK.open("w") as lock, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        house = House(Path(folder))
        run = Run(Path(folder), house, console)
        try:
            for name in chosen:
                PARTS[name](run)
        finally:
            house.close()
    for sentence in run.verdicts:
        console.print(sentence)
    console.print(f"{os.cpu_count()} CPUs; {run.failed} requests failed.")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
