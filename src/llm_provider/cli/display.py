"""What the command shows a person: live on a terminal, plain lines elsewhere.

The terminal's part needs rich, which the control machine has and the chat API's container has not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llm_provider.cli import bench, check

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_HEADING = (
    f"{'at once':>7}   {'failed':>6}{'TTFT p50':>9}{'p95':>9}{'prompt':>7}{'tok/s':>6}"
    f"{'in all':>7}{'time':>6}"
)
_BESIDE = 12
"""Columns of a terminal that a spinner and the time take, beside words."""
PROGRESS_SECONDS = 10.0
"""Seconds between two lines of progress of one level; its end has one in any case."""
_WORST = 3
"""How many kinds of failure are shown."""


class Display(check.Watcher, bench.Watcher):
    """Plain lines, each once it is known."""

    def __init__(self) -> None:
        # Now: rich puts a stream of its own, that has no encoding, in the place of sys.stdout.
        self._marks = _marks()
        self.terminal = sys.stdout.isatty()

    def line(self, text: str, style: str = "") -> None:
        """One line; `style` is rich's, for where it can be shown."""
        print(printable(text) if self.terminal else text, flush=True)

    def write(self, piece: str) -> None:
        """A piece of an answer, as it comes."""
        print(printable(piece) if self.terminal else piece, end="", flush=True)

    def end(self) -> None:
        """The answer's end."""
        print(flush=True)

    @contextmanager
    def busy(self, text: str, *, bar: bool = False) -> Iterator[None]:
        """Show that something goes on, until the context ends; `bar`: and how far it is."""
        yield

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """What goes on now, and how far it is."""

    # Checks.

    def begins(self, name: str) -> None:
        self.say(name)

    def waits(self, reason: str) -> None:
        self.say(f"ready: {reason.rpartition('is not ready: ')[2]}")

    def ends(self, outcome: check.Check) -> None:
        mark = self._marks[not outcome.ok]
        self.line(f"{mark} {outcome.name:<8} {outcome.seen}")
        if not outcome.ok and outcome.tried:
            self.line(f"{'':<{len(mark)}} {'':<8} wanted: {outcome.wanted}")

    def verdict(self, report: check.Report) -> None:
        """What all checks come to."""
        failed = [outcome.name for outcome in report.checks if not outcome.ok]
        verdict = f"failed: {', '.join(failed)}" if failed else "all checks passed"
        self.line(f"{report.url}: {verdict}.", "bold red" if failed else "bold green")

    # Levels.

    def starts(self, result: bench.Result) -> None:
        urls = [result.url, *([result.compare] if result.compare else [])]
        for label, url, model in zip("AB", urls, result.models, strict=False):
            self.line(f"{label + ': ' if result.compare else ''}{model} at {url}")
        self.line(_HEADING, "bold")

    def done(self, parallel: int, done: int, total: int) -> None:
        self.say(f"{parallel} at once", done, total)

    def level(self, result: bench.Level) -> None:
        sides = [("A" if result.compare else "", result.url)]
        if result.compare is not None:
            sides.append(("B", result.compare))
        for label, tally in sides:
            self.line(_row("" if label == "B" else str(result.parallel), label, tally))
        if (added := result.added_ttft) is not None:
            ratio = result.throughput_ratio
            self.line(
                f"{'':>7}   A to B: TTFT {added[0] * 1000:+.1f} ms, p95 {added[1] * 1000:+.1f} ms"
                + ("" if ratio is None else f", tok/s x{ratio:.2f}"),
                "bold",
            )
        for label, tally in sides:
            for words, count in tally.failures.most_common(_WORST):
                self.line(f"{'':>7} {label:<1} {count} failed: {words}", "red")


class Terminal(Display):
    """Live: what goes on is shown below what is done, in colours, as wide as the terminal is."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress: Progress | None = None
        self._column = 0
        self._held = ""

    def line(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(text), style=style))

    def write(self, piece: str) -> None:
        # Lines are broken between words, so a word is held until it is whole.
        from rich.cells import cell_len

        for char in printable(piece):
            if char.isspace() and self._held.strip():
                self._put()
            if char == "\n":
                self._console.file.write("\n")
                self._column, self._held = 0, ""
            else:
                self._held += char
                if cell_len(char) == 2:  # of a script that has no spaces
                    self._put()
        self._console.file.flush()

    def end(self) -> None:
        self._put()
        self._column = 0
        print(flush=True)

    def _put(self) -> None:
        from rich.cells import cell_len

        held, self._held = self._held, ""
        if self._column and self._column + cell_len(held) > self._console.width:
            self._console.file.write("\n")
            held = held.lstrip()
            self._column = 0
        self._console.file.write(held)
        self._column += cell_len(held)

    @contextmanager
    def busy(self, text: str, *, bar: bool = False) -> Iterator[None]:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            *([BarColumn()] if bar else []),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._progress.add_task(printable(text), total=None)
        try:
            with self._progress:
                yield
        finally:
            self._progress = None

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        from rich.text import Text

        if self._progress is not None:
            # Cut here: where it is narrow, rich would leave out what moves as well.
            shown = Text(printable(text))
            shown.truncate(self._console.width - _BESIDE, overflow="ellipsis")
            (task,) = self._progress.task_ids
            self._progress.update(task, description=shown.plain, completed=done, total=total)

    def ends(self, outcome: check.Check) -> None:
        from rich.table import Table
        from rich.text import Text

        mark = self._marks[not outcome.ok]
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(width=len(mark))
        row.add_column(width=8)
        row.add_column(overflow="fold")
        style = "green" if outcome.ok else "red"
        row.add_row(Text(mark, style), outcome.name, Text(printable(outcome.seen)))
        if not outcome.ok and outcome.tried:
            row.add_row("", "", Text(f"wanted: {printable(outcome.wanted)}", "dim"))
        self._console.print(row)


class ProgressLines(bench.Watcher):
    """How far a benchmark is, in lines on standard error, for a program that shows them."""

    def __init__(self) -> None:
        self._shown = 0.0

    def done(self, parallel: int, done: int, total: int) -> None:
        now = time.monotonic()
        if done and (done == total or now - self._shown >= PROGRESS_SECONDS):
            self._shown = now
            print(f"{parallel} at once: {done} of {total}", file=sys.stderr, flush=True)


def for_stdout() -> Display:
    """A live display where standard output is a terminal and rich is there, else plain lines."""
    if not sys.stdout.isatty():
        return Display()
    try:
        from rich.console import Console
    except ImportError:
        return Display()
    return Terminal(Console())


def printable(text: str) -> str:
    """`text` without what would steer a terminal: an answer may hold anything."""
    return text.translate(_STEERING)


_STEERING = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\N{REPLACEMENT CHARACTER}")
for _kept in "\t\n":
    del _STEERING[ord(_kept)]


def _marks() -> tuple[str, str]:
    """How a check that holds is marked, and one that does not."""
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok    ", "FAILED"
    return "✓", "✗"


def _row(level: str, label: str, tally: bench.Tally) -> str:
    def of(value: float | None, unit: str = "", factor: float = 1) -> str:
        if value is None:
            return "-"
        value *= factor
        return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"

    p50, p95 = (bench.quantile(tally.ttfts, share) for share in (0.5, 0.95))
    return (
        f"{level:>7} {label:<1} {f'{tally.failed}/{tally.requests}':>6}"
        f"{of(p50, ' ms', 1000):>9}{of(p95, ' ms', 1000):>9}"
        f"{of(tally.prompt_rate):>7}{of(bench.quantile(tally.paces, 0.5)):>6}"
        f"{of(tally.throughput):>7}"
        f"{of(tally.seconds, ' s'):>6}"
    )
