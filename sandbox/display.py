"""Shows running steps: live lines on a terminal, elsewhere plain lines with a heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

QUICK = 0.5
"""Seconds after which a step is announced: one that ends before is worth a single line."""
HEARTBEAT = 15.0
"""Seconds between two signs of life of a step, where there is no terminal."""


class Shown(Protocol):
    """What a display needs to know of a step."""

    title: str
    started: float
    seconds: float
    last: str


class Display(Protocol):
    """Somewhere to show steps."""

    def showing(self, total: int) -> AbstractContextManager[None]:
        """Show until the context ends; `total` is the number of steps."""

    def start(self, step: Shown) -> None: ...

    def end(self, step: Shown, note: str | None) -> None: ...


class _Counted:
    def __init__(self) -> None:
        self._total = 0
        self._begun = 0
        self._running: dict[int, Shown] = {}
        self._numbers: dict[int, int] = {}
        self._lock = threading.RLock()

    def _begin(self, step: Shown) -> None:
        self._begun += 1
        self._numbers[id(step)] = self._begun
        step.started = time.monotonic()
        self._running[id(step)] = step

    def _label(self, step: Shown) -> str:
        width = len(str(self._total))
        return f"[{self._numbers[id(step)]:>{width}}/{self._total}] {step.title}"

    def _finish(self, step: Shown, note: str | None) -> str:
        del self._running[id(step)]
        extra = f" ({note})" if note else ""
        return f"{self._label(step)}: {step.seconds:.1f} s{extra}"


def _line(line: str) -> None:
    print(line, flush=True)


class LineDisplay(_Counted):
    """For logs and pipes: a line when a step turns out long, one every 15 s, one at the end."""

    @contextmanager
    def showing(self, total: int) -> Iterator[None]:
        self._total = total
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(over,), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            over.set()
            ticker.join()

    def _tick(self, over: threading.Event) -> None:
        beats: dict[int, int] = {}
        while not over.wait(0.25):
            with self._lock:
                for step in self._running.values():
                    seconds = time.monotonic() - step.started
                    beat = int(seconds / HEARTBEAT)
                    if id(step) not in beats:
                        if seconds > QUICK:
                            beats[id(step)] = beat
                            _line(f"{self._label(step)} ...")
                    elif beat > beats[id(step)]:
                        beats[id(step)] = beat
                        _line(f"{self._label(step)}: {seconds:.0f} s ... {step.last[:100]}")

    def start(self, step: Shown) -> None:
        with self._lock:
            self._begin(step)

    def end(self, step: Shown, note: str | None) -> None:
        with self._lock:
            _line(self._finish(step, note))


class LiveDisplay(_Counted):
    """For a terminal: finished steps scroll up, running ones move below them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._spinner = Spinner("dots")

    @contextmanager
    def showing(self, total: int) -> Iterator[None]:
        self._total = total
        with Live(
            get_renderable=self._render, console=self._console, refresh_per_second=8, transient=True
        ):
            yield

    def _render(self) -> Group:
        with self._lock:
            lines = []
            for step in self._running.values():
                seconds = time.monotonic() - step.started
                mark = self._spinner.render(time.monotonic())
                line = Text.assemble(
                    mark if isinstance(mark, Text) else "-",
                    f" {self._label(step)} ",
                    (f"{seconds:.0f} s ", "bold"),
                    (step.last, "dim"),
                    no_wrap=True,
                )
                line.truncate(self._console.width - 1, overflow="ellipsis")
                lines.append(line)
            return Group(*lines)

    def start(self, step: Shown) -> None:
        with self._lock:
            self._begin(step)

    def end(self, step: Shown, note: str | None) -> None:
        with self._lock:
            line = self._finish(step, note)
        # Outside the lock: printing waits for a redraw, and a redraw waits for the lock.
        self._console.print(line, markup=False, highlight=False)


def display_for_terminal() -> Display:
    """A live display on a terminal, plain lines elsewhere."""
    console = Console()
    return LiveDisplay(console) if console.is_terminal else LineDisplay()
