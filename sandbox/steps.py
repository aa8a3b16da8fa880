"""Long work as named steps: run side by side where they can, always saying how far they are.

A `Step` runs commands and keeps their whole output in a log file; a `Runner` starts each step as
soon as those that it needs are done, shows them, and stops all of them when one fails, or goes on
with those that do not need it.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

from sandbox.display import Display, display_for_terminal
from sandbox.errors import SandboxError

_TAIL_LINES = 20
# Seconds that a stopped command gets to clean up before it is killed.
_GRACE = 10.0
# Colours and cursor moves (ECMA-48 control sequences).
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Cancelled(Exception):
    """Another step failed, or the person pressed Ctrl-C: this step was stopped on the way."""


class NotRun(SandboxError):
    """A step that could not run, since one that it needs failed."""


class Step:
    """One piece of work, its log and its last line of output."""

    def __init__(
        self,
        name: str,
        title: str,
        action: Callable[[Step], str | None],
        needs: Sequence[str] = (),
        after: Sequence[str] = (),
        claims: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.title = title
        self.action = action
        self.needs = frozenset(needs)
        self.after = frozenset(after)
        self.claims = frozenset(claims)
        self.started = 0.0
        self.seconds = 0.0
        self.last = ""
        self.log: Path = Path(os.devnull)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._out: IO[str] = io.StringIO()
        self._cancelled = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    @property
    def tail(self) -> list[str]:
        """The last lines of output, oldest first."""
        return list(self._tail)

    def perform(self, logs: Path) -> str | None:
        """Run the action with its log open; returns its note (such as `already there`)."""
        self.started = time.monotonic()
        self.log = logs / f"{self.name}.log"
        with self.log.open("w", encoding="utf-8") as self._out:
            try:
                return self.action(self)
            finally:
                self.seconds = time.monotonic() - self.started

    def say(self, line: str) -> None:
        """Add a line to the log, without its colours, and show it as the step's latest."""
        line = _ESCAPES.sub("", line)
        self._out.write(line + "\n")
        self._out.flush()
        if line.strip():
            self.last = line.strip()
            self._tail.append(line)

    def run(
        self,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: IO[bytes] | None = None,
    ) -> None:
        """Run a command to its end, its output into the log. Raises SandboxError on failure.

        `env` adds to this process's environment.
        """
        words = [str(word) for word in argv]
        self.say("$ " + " ".join(words))
        self.check()
        # A session of its own: Ctrl-C reaches it through `cancel`, once, and with its children.
        # And should this process be killed, the command dies with it: a second `up` must not meet
        # the first one's commands at work on the same files.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *words],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._process = process
        try:
            if self._cancelled.is_set():
                self.cancel()
            # Universal newlines also end a line at \r: progress bars come through.
            for line in process.stdout or ():
                self.say(line.rstrip("\n"))
            code = process.wait()
        finally:
            self._process = None
        self.check()
        if code != 0:
            raise SandboxError(f"`{words[0]}` ended with exit status {code}.")

    def check(self) -> None:
        """Raise Cancelled where the whole run is being stopped."""
        if self._cancelled.is_set():
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond a cancellation."""
        self._cancelled.wait(seconds)
        self.check()

    def until(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Ask until `ready` says yes. Raises SandboxError after `seconds`."""
        end = time.monotonic() + seconds
        self.say(f"waiting for {what}")
        while not ready():
            if time.monotonic() > end:
                raise SandboxError(f"Waited {seconds:.0f} s for {what}, and it did not come.")
            self.sleep(0.3)

    def cancel(self) -> None:
        """Stop the running command, with its children; it gets a moment to clean up."""
        self._cancelled.set()
        process = self._process
        if process is None:
            return
        _signal_group(process, signal.SIGTERM)
        killer = threading.Timer(_GRACE, _signal_group, (process, signal.SIGKILL))
        killer.daemon = True
        killer.start()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return


class Runner:
    """Runs steps in the order their needs allow.

    With `keep_going`, a step that fails stops only the steps that need it.
    """

    def __init__(
        self,
        logs: Path,
        display: Display | None = None,
        at_once: int = 4,
        keep_going: bool = False,
    ) -> None:
        self._logs = logs
        self._display = display or display_for_terminal()
        self._at_once = at_once
        self._keep_going = keep_going
        self._steps: dict[str, Step] = {}

    @property
    def steps(self) -> list[Step]:
        """All steps, in the order of adding."""
        return list(self._steps.values())

    def add(
        self,
        name: str,
        title: str,
        action: Callable[[Step], str | None],
        needs: Sequence[str] = (),
        after: Sequence[str] = (),
        claims: Sequence[str] = (),
    ) -> None:
        """Add a step. `needs` and `after` name steps added before: so there can be no circle.

        A step starts when those it `needs` have succeeded, those it comes `after` have ended in
        any way, and no running step has a resource of its `claims`.
        """
        missing = [need for need in (*needs, *after) if need not in self._steps]
        if missing or name in self._steps:
            raise ValueError(f"step {name}: needs {missing} or is there twice")
        self._steps[name] = Step(name, title, action, needs, after, claims)

    def execute(self) -> dict[str, BaseException]:
        """Run all steps; returns the failures by step name, in the order of failing.

        Raises SandboxError for the first step that fails, with its log's end, unless the runner
        keeps going.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        done: set[str] = set()
        failed: dict[str, BaseException] = {}
        running: dict[Future[str | None], Step] = {}
        waiting = self.steps
        with (
            ThreadPoolExecutor(self._at_once) as pool,
            self._display.showing(len(self._steps)),
        ):
            try:
                while waiting or running:
                    self._give_up(waiting, failed)
                    self._start(waiting, running, done, failed, pool)
                    if not running:
                        continue
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        step = running.pop(future)
                        problem = future.exception()
                        if problem is None:
                            done.add(step.name)
                            self._display.end(step, future.result())
                            continue
                        stopped = failed and not self._keep_going
                        self._display.end(step, "stopped" if stopped else "failed")
                        failed[step.name] = problem
                        if not self._keep_going:
                            waiting.clear()
                            for other in running.values():
                                other.cancel()
            except BaseException:
                for step in running.values():
                    step.cancel()
                raise
        if failed and not self._keep_going:
            name, problem = next(iter(failed.items()))
            raise _failure(self._steps[name], problem) from problem
        return failed

    def _start(
        self,
        waiting: list[Step],
        running: dict[Future[str | None], Step],
        done: set[str],
        failed: Mapping[str, BaseException],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Start the steps that can start now."""
        for step in list(waiting):
            if len(running) == self._at_once:
                return
            claimed = {claim for other in running.values() for claim in other.claims}
            ready = step.needs <= done and step.after <= done | failed.keys()
            if ready and claimed.isdisjoint(step.claims):
                waiting.remove(step)
                self._display.start(step)
                running[pool.submit(step.perform, self._logs)] = step

    def _give_up(self, waiting: list[Step], failed: dict[str, BaseException]) -> None:
        """Fail the steps that need one that failed, and those that need these."""
        for step in list(waiting):
            if lacking := step.needs & failed.keys():
                waiting.remove(step)
                titles = ", ".join(sorted(self._steps[name].title for name in lacking))
                failed[step.name] = NotRun(f"Not run, because of a failed step: {titles}.")


def _failure(step: Step, problem: BaseException) -> BaseException:
    """What to raise for a failed step: its reason, the end of its output, its log's path."""
    if not isinstance(problem, (SandboxError, OSError)):
        return problem
    lines = [f"Step `{step.title}` failed: {problem}"]
    if step.tail:
        lines += [f"  | {line}" for line in step.tail]
    lines.append(f"The whole output is in {step.log}.")
    return SandboxError("\n".join(lines))
