"""Runs tests on simulated boards: `python -m tests --help` lists the verbs.

`make test`, `make test-all`, `make test-NAME` and `make test-one TEST=...` call this.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NoReturn

from sandbox.instance import LOGS
from sandbox.steps import NotRun, Runner, Step
from tests import report
from tests.playing import ENVIRONMENT, ROOT
from tests.suites import MINUTES, PAIR, SUITES, Part, Suite, suite_of

FOLDER = LOGS / "tests"
_WORDS = ["-m", "pytest", "-v", "-rP", "--durations=10"]
PYTEST = [sys.executable, *_WORDS]
RERUN = ["--reruns", "1"]
"""Boards share a machine with everything else that runs: a test that fails gets a second try."""
_REASON_COLUMNS = 200
_HOSTS_TESTS = ("tests/system/hosts", "tests/system/boards")


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; returns the exit status (0 passed, 1 failed, 130 interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument(
        "--keep-boards", action="store_true", help="leave the boards of the tests as they are"
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        default=int(os.environ.get("TESTS_AT_ONCE", 1 + (os.cpu_count() or 1))),
        help="parts that run side by side (default: one more than the machine has CPUs)",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("main", help="lint, unit tests and the scenario on two boards")
    verbs.add_parser("all", help="that, and every suite but those on request")
    verbs.add_parser("scenario", help="the scenario on two boards alone")
    suite = verbs.add_parser("suite", help="one suite alone")
    suite.add_argument("name", choices=[each.name for each in SUITES])
    one = verbs.add_parser("one", help="one test alone, as a failed run names it")
    one.add_argument("test")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if asked.verb == "one" and not _needs_boards(asked.test):
            return subprocess.run([*PYTEST, "-s", asked.test], cwd=ROOT, check=False).returncode
        run = Run(asked.at_once, asked.keep_boards)
        if asked.verb in ("main", "all"):
            run.add_checks()
        if asked.verb in ("main", "all", "scenario"):
            run.add_scenario()
        if asked.verb == "all":
            run.add_suites(each for each in SUITES if not each.on_request)
        if asked.verb == "suite":
            run.add_suites(each for each in SUITES if each.name == asked.name)
        if asked.verb == "one":
            run.add_one(asked.test)
        return run.execute()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _pytest(suite: Suite) -> list[str]:
    """pytest, in the suite's environment."""
    if suite.environment == ".venv":
        return PYTEST
    python = ROOT / suite.environment / "bin/python"
    if not python.exists():
        name = suite.environment.removeprefix(".venv-")
        raise SystemExit(f"{suite.environment} is missing: run `scripts/venv {name}` first.")
    return [str(python), *_WORDS]


def _needs_boards(test: str) -> bool:
    return test.startswith(("tests/integration/", *_HOSTS_TESTS))


def rerun_command(test: str) -> str:
    """The command that runs one test alone."""
    return f"make test-one TEST={shlex.quote(test)}"


class Run:
    """Parts of a run, their boards, and what is printed at the end."""

    def __init__(self, at_once: int, keep_boards: bool) -> None:
        self._runner = Runner(FOLDER, at_once=at_once, keep_going=True)
        self._keep_boards = keep_boards
        self._minutes: dict[str, float] = {}
        self._commands: dict[str, str] = {}
        self._scenario: list[str] = []
        self._boards_used = False
        handle, name = tempfile.mkstemp(prefix="edge-llm-tests-", suffix=".jsonl")
        os.close(handle)
        self._report = Path(name)
        self._environment = {
            "SANDBOX": "test",
            "ANSIBLE_FORCE_COLOR": "false",
            report.VARIABLE: str(self._report),
        }

    def _add(
        self,
        name: str,
        argv: list[str],
        command: str,
        minutes: float | None = None,
        needs: Iterable[str] = (),
        after: Iterable[str] = (),
        claims: Iterable[str] = (),
    ) -> None:
        act = partial(_run, argv=argv, environment=self._environment)
        self._runner.add(name, name, act, [*needs], [*after], [*claims])
        self._commands[name] = command
        if minutes is not None:
            self._minutes[name] = minutes

    def add_checks(self) -> None:
        """Add linters and unit tests."""
        for name in ("unit", "lint"):
            argv = ["make", "--no-print-directory", name]
            self._add(name, argv, f"make {name}", MINUTES[name])

    def _add_images(self) -> None:
        if "images" not in self._commands:
            argv = [sys.executable, "-m", "sandbox", "images"]
            self._add("images", argv, "python -m sandbox images", MINUTES["images"])

    def add_scenario(self) -> None:
        """Add Molecule's scenario, which starts from clean boards."""
        self._add_images()
        self._boards_used = True
        argv = ["molecule", "test", "--scenario-name", "default", "--destroy", "never"]
        self._add(
            *("scenario", [*argv, "--no-command-borders"], "make molecule", MINUTES["scenario"]),
            needs=["images"],
            claims=PAIR,
        )
        self._scenario = ["scenario"]

    def add_suites(self, suites: Iterable[Suite]) -> None:
        """Add suites; boards that the whole of site.yml has provisioned are shared."""
        for suite in suites:
            for part in suite.parts:
                argv = [*_pytest(suite), *(RERUN if part.boards else []), *part.paths]
                # A suite's parts run side by side where they can: each may take the suite's time.
                self._add_part(part, f"make test-{suite.name}", argv, suite.minutes)

    def add_one(self, test: str) -> None:
        """Add one test on fresh boards."""
        suite = suite_of(test)
        if suite is None:
            inventory = ["-i", "inventories/sandbox", "-e", json.dumps({"tests_path": test})]
            argv = ["ansible-playbook", *inventory, "tests/system/hosts/run.yml"]
            self._add_part(Part("test", (test,), PAIR), rerun_command(test), argv)
        else:
            part = Part("test", (test,), suite.boards)
            self._add_part(part, rerun_command(test), [*_pytest(suite), test])

    def _add_part(
        self, part: Part, command: str, argv: list[str], minutes: float | None = None
    ) -> None:
        self._add_images()
        needs = ["images"]
        provisioned = [board for board in part.boards if board in PAIR]
        others = [board for board in part.boards if board not in PAIR]
        if others:
            needs.append(self._boards(others))
        if provisioned:
            needs.append(self._provisioned())
        self._add(part.name, argv, command, minutes, needs=needs, claims=part.boards)

    def _boards(self, names: list[str]) -> str:
        """The step that starts boards which nothing is deployed to; its name."""
        self._boards_used = True
        name = f"boards {names[0].rpartition('-')[0]}"
        if name not in self._commands:
            argv = [sys.executable, "-m", "sandbox", "up", "--hosts", ",".join(names)]
            self._add(name, argv, " ".join(argv[1:]), needs=["images"])
        return name

    def _provisioned(self) -> str:
        """The step after which two boards are as the inventory says; its name."""
        self._boards_used = True
        name = "boards"
        if name not in self._commands:
            up = f"{sys.executable} -m sandbox up --hosts {','.join(PAIR)}"
            play = f"ansible-playbook -i inventories/sandbox --limit {','.join(PAIR)} site.yml"
            argv = ["sh", "-c", f"{up} && {play}"]
            self._add(name, argv, play, needs=["images"], after=self._scenario, claims=PAIR)
        return name

    def execute(self) -> int:
        """Run all parts, print the summary; returns the exit status."""
        began = time.monotonic()
        if self._boards_used:
            # Boards, and Molecule's notes on them, that an interrupted run has left.
            _sandbox_down()
            _quietly("molecule", "reset", "--scenario-name", "default")
        try:
            failed = self._runner.execute()
            self._summarise(failed, time.monotonic() - began)
            return 1 if failed else 0
        finally:
            self._report.unlink(missing_ok=True)
            if self._boards_used and not self._keep_boards:
                _sandbox_down()

    def _summarise(self, failed: dict[str, BaseException], seconds: float) -> None:
        results = report.read(self._report)
        tests, again = results.failed, results.again
        print(f"\n{'part':<18}{'minutes':>8}{'budget':>8}")
        for step in self._runner.steps:
            minutes, budget = step.seconds / 60, self._minutes.get(step.name)
            problem = failed.get(step.name)
            note = "" if problem is None else "not run" if isinstance(problem, NotRun) else "FAILED"
            if budget is not None and minutes > budget and not note:
                note = "over its budget"
            shown = "" if budget is None else f"{budget:.0f}"
            print(f"{step.name:<18}{minutes:>8.1f}{shown:>8}  {note}".rstrip())
        print(f"{'in all':<18}{seconds / 60:>8.1f}")
        if again:
            print(f"\n{len(again)} passed only when run again:")
            for each in again:
                print(f"  {each.test}\n{_indented(each.text)}")
                print(f"    alone: {rerun_command(each.test)}")
        if tests:
            print(f"\n{len(tests)} failed:")
            for each in tests:
                print(f"  {each.test}")
                if each.first:
                    print(f"    the first time:\n{_indented(each.first)}\n    the second time:")
                print(f"{_indented(each.text)}\n    alone: {rerun_command(each.test)}")
        for name, problem in failed.items():
            step = next(each for each in self._runner.steps if each.name == name)
            print(f"\n{name}: {problem}")
            if not isinstance(problem, NotRun):
                if not tests:
                    print("\n".join(f"  | {line}" for line in step.tail))
                print(f"  the whole output: {step.log}\n  alone: {self._commands[name]}")
        if not failed:
            print("\nAll parts passed.")
        # A part can fail without a test that does, as a linter or a playbook.
        parts = sum(not isinstance(problem, NotRun) for problem in failed.values())
        # Names come last: what shows a log often shows only its end.
        print()
        for each in tests:
            print(f"FAILED {each.test}: {_reason(each.first or each.text)}")
        print(f"{results.passed} passed, {max(len(tests), parts)} failed")


def _run(step: Step, argv: list[str], environment: dict[str, str]) -> str | None:
    step.run(*argv, env=environment, cwd=ROOT)
    return None


def _sandbox_down() -> None:
    _quietly(sys.executable, "-m", "sandbox", "down", "--keep-cache")


def _quietly(*argv: str) -> None:
    """Run a command that prints only where it fails; a failure ends the run."""
    done = subprocess.run(
        argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SystemExit(f"`{' '.join(argv)}` failed with exit status {done.returncode}.")


def _reason(text: str) -> str:
    """The line of a failure that says what was wrong: pytest marks it with E."""
    marked = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (marked or text.splitlines()[-1:] or [""])[0][:_REASON_COLUMNS]


def _indented(text: str) -> str:
    return "\n".join(f"    | {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
