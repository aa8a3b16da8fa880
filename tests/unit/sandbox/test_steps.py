"""Steps run in the order of their needs, stop together, and say what went wrong."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox import display
from sandbox.display import LineDisplay, Shown
from sandbox.errors import SandboxError
from sandbox.steps import Runner, Step


class Recorded:
    """A display that remembers."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: dict[str, str | None] = {}

    @contextmanager
    def showing(self, total: int) -> Iterator[None]:
        yield

    def start(self, step: Shown) -> None:
        self.started.append(step.title)

    def end(self, step: Shown, note: str | None) -> None:
        self.ended[step.title] = note


def test_a_step_starts_when_those_it_needs_are_done(tmp_path: Path) -> None:
    order: list[str] = []

    def act(step: Step) -> None:
        order.append(f"{step.name} begins")
        time.sleep(0.05)
        order.append(f"{step.name} ends")

    runner = Runner(tmp_path, Recorded())
    runner.add("a", "a", act)
    runner.add("b", "b", act, ["a"])
    runner.add("c", "c", act, ["a", "b"])
    runner.execute()
    assert order == [f"{name} {word}" for name in "abc" for word in ("begins", "ends")]


def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def act(step: Step) -> None:
        both.wait()

    runner = Runner(tmp_path, Recorded())
    runner.add("a", "a", act)
    runner.add("b", "b", act)
    runner.execute()


def test_a_need_that_is_not_there_is_a_mistake_of_the_programmer(tmp_path: Path) -> None:
    runner = Runner(tmp_path, Recorded())
    with pytest.raises(ValueError, match="needs \\['b'\\]"):
        runner.add("a", "a", lambda step: None, ["b"])


def test_a_failure_names_the_step_its_last_lines_and_its_log(tmp_path: Path) -> None:
    script = "for i in range(30): print('line', i)\nraise SystemExit(3)"
    shown = Recorded()
    runner = Runner(tmp_path, shown)
    runner.add("bad", "Bad step", lambda step: step.run(sys.executable, "-c", script))
    runner.add("after", "After", lambda step: None, ["bad"])
    with pytest.raises(SandboxError) as caught:
        runner.execute()
    text = str(caught.value)
    assert text.startswith("Step `Bad step` failed: ")
    assert "exit status 3" in text
    assert "line 10\n" in text
    assert "line 29\n" in text
    assert "line 9\n" not in text
    assert str(tmp_path / "bad.log") in text
    assert "line 0\n" in (tmp_path / "bad.log").read_text()
    assert shown.started == ["Bad step"]


def test_one_failure_stops_the_commands_of_the_others(tmp_path: Path) -> None:
    shown = Recorded()
    runner = Runner(tmp_path, shown)
    started = threading.Event()

    def long(step: Step) -> None:
        started.set()
        step.run("sleep", "infinity")

    def bad(step: Step) -> None:
        started.wait(10)
        raise SandboxError("That will not do.")

    runner.add("long", "Long", long)
    runner.add("bad", "Bad", bad)
    with pytest.raises(SandboxError, match="That will not do"):
        runner.execute()
    assert shown.ended == {"Bad": "failed", "Long": "stopped"}


def test_ctrl_c_stops_the_running_commands(tmp_path: Path) -> None:
    class Interrupting(Recorded):
        def end(self, step: Shown, note: str | None) -> None:
            raise KeyboardInterrupt

    runner = Runner(tmp_path, Interrupting())
    runner.add("long", "Long", lambda step: step.run("sleep", "infinity"))
    runner.add("short", "Short", lambda step: None)
    with pytest.raises(KeyboardInterrupt):
        runner.execute()


def test_waiting_ends_with_a_sentence(tmp_path: Path) -> None:
    step = Step("wait", "Wait", lambda step: None)
    with pytest.raises(SandboxError, match=r"Waited 0 s for the bus, and it did not come\."):
        step.until(lambda: False, "the bus", 0)


def test_without_a_terminal_a_long_step_has_a_first_line_heartbeats_and_a_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "HEARTBEAT", 0.2)

    def act(step: Step) -> str:
        step.say("half way")
        time.sleep(1.2)
        return "as good as new"

    runner = Runner(tmp_path, LineDisplay())
    runner.add("a", "Some work", act)
    runner.add("b", "Next to nothing", lambda step: None, ["a"])
    runner.execute()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/2] Some work ..."
    assert lines[1].endswith("s ... half way")
    assert lines[-2].startswith("[1/2] Some work: 1.")
    assert lines[-2].endswith("s (as good as new)")
    assert lines[-1] == "[2/2] Next to nothing: 0.0 s"
    assert len([line for line in lines if "Next to nothing" in line]) == 1


def test_a_step_fails_and_those_that_do_not_need_it_go_on(tmp_path: Path) -> None:
    ran: list[str] = []

    def act(step: Step) -> None:
        ran.append(step.name)
        if step.name == "bad":
            raise SandboxError("bad luck")

    runner = Runner(tmp_path, Recorded(), keep_going=True)
    runner.add("bad", "Bad step", act)
    runner.add("needs", "Needs it", act, ["bad"])
    runner.add("needs-that", "Needs that", act, ["needs"])
    runner.add("after", "After it", act, after=["bad", "needs-that"])
    runner.add("good", "Good step", act)
    failed = runner.execute()
    assert {name: str(problem) for name, problem in failed.items()} == {
        "bad": "bad luck",
        "needs": "Not run, because of a failed step: Bad step.",
        "needs-that": "Not run, because of a failed step: Needs it.",
    }
    assert sorted(ran) == ["after", "bad", "good"]


def test_steps_that_claim_the_same_never_run_side_by_side(tmp_path: Path) -> None:
    holding: set[str] = set()
    met: list[set[str]] = []
    both = threading.Barrier(2, timeout=10)

    def act(step: Step) -> None:
        holding.add(step.name)
        met.append(set(holding))
        if step.name in ("a", "c"):  # that the others do run side by side
            both.wait()
        holding.remove(step.name)

    runner = Runner(tmp_path, Recorded())
    runner.add("a", "a", act, claims=["board-1", "board-2"])
    runner.add("b", "b", act, claims=["board-2"])
    runner.add("c", "c", act, claims=["board-3"])
    runner.execute()
    assert not any({"a", "b"} <= names for names in met)
