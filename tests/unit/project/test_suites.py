"""Every integration test is in a suite; a run reports what failed, and the command for it alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.instance import HOSTS
from tests import __main__ as run
from tests import report
from tests.playing import ROOT
from tests.suites import MINUTES, SUITES, Part, Suite, suite_of

FILES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "tests/integration").glob("**/test_*.py")
)


def test_every_integration_test_is_run_by_one_part() -> None:
    parts = [part for suite in SUITES for part in suite.parts]
    for file in FILES:
        found = [
            part.name
            for part in parts
            if any(file == path or file.startswith(f"{path}/") for path in part.paths)
        ]
        assert len(found) == 1, (file, found)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_what_a_suite_names_exists(suite: Suite) -> None:
    for part in suite.parts:
        assert all((ROOT / path).exists() for path in part.paths)
    assert set(suite.boards) <= set(HOSTS)


@pytest.mark.parametrize(
    "part", [part for suite in SUITES for part in suite.parts], ids=lambda part: part.name
)
def test_a_part_has_the_boards_that_its_tests_name(part: Part) -> None:
    files = [file for path in part.paths for file in (ROOT / path).parent.glob("test_*.py")]
    text = "".join(file.read_text() for file in files if str(file.relative_to(ROOT)) in part.paths)
    named = {name for name in HOSTS if re.search(rf"\b{name}\b", text)}
    assert named <= set(part.boards)


def test_every_suite_has_a_make_target_of_its_own() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^test-([a-z-]+): ## suite: ", makefile, re.MULTILINE)
    assert sorted(targets) == sorted(suite.name for suite in SUITES)


def test_a_suite_on_request_runs_in_its_own_environment_and_not_with_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(run.Run, "add_checks", lambda self: None)
    monkeypatch.setattr(run.Run, "add_scenario", lambda self: None)
    monkeypatch.setattr(
        run.Run, "add_suites", lambda self, suites: asked.extend(each.name for each in suites)
    )
    monkeypatch.setattr(run.Run, "execute", lambda self: 0)
    assert run.main(["all"]) == 0
    assert asked == [suite.name for suite in SUITES if suite.name != "clients"]
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (clients,) = [suite for suite in SUITES if suite.name == "clients"]
    with pytest.raises(SystemExit, match="venv-clients is missing: run `scripts/venv clients`"):
        run._pytest(clients)
    python = tmp_path / ".venv-clients/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert run._pytest(clients)[:3] == [str(python), "-m", "pytest"]


def test_every_suite_is_documented() -> None:
    text = (ROOT / "docs/testing.md").read_text()
    for suite in SUITES:
        assert f"| `make test-{suite.name}` | {suite.minutes} |" in text
    for target, name in (("lint", "lint"), ("unit", "unit"), ("molecule", "scenario")):
        assert f"| `make {target}` | {MINUTES[name]} |" in text


def test_a_test_is_found_in_its_suite() -> None:
    found = suite_of("tests/integration/rollback/test_cuts.py::test_x[a-b]")
    assert found is not None and found.name == "rollback"
    assert suite_of("tests/system/hosts/test_host.py::test_files") is None


TESTS = """
from pathlib import Path
HERE = Path(__file__).parent
def test_passes(): pass
def test_fails(): assert 1 == 2, "never equal"
def test_is_moody():
    again = HERE / "again"
    if not again.exists():
        again.touch()
        raise AssertionError("the first time")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_failed_and_rerun_tests_are_recorded_once(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    path = tmp_path / "report.jsonl"
    words = ["-p", "tests.conftest", "--reruns", "1", "--continue-on-collection-errors", *workers]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(tmp_path)],
        env={"PYTHONPATH": str(ROOT), report.VARIABLE: str(path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found = report.read(path)
    assert found.passed == 2
    names = sorted(each.test for each in found.failed)
    assert names == ["test_broken.py", "test_it.py::test_fails"]
    assert "never equal" in next(each.text for each in found.failed if "fails" in each.test)
    assert [each.test for each in found.again] == ["test_it.py::test_is_moody"]
    assert "the first time" in found.again[0].text


def test_the_summary_names_failures_reruns_and_their_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    asked = run.Run(at_once=2, keep_boards=False)
    script = (
        "import os; from pathlib import Path; from tests.report import append\n"
        f"path = Path(os.environ[{report.VARIABLE!r}])\n"
        "append(path, 'tests/a.py::test_x[1-\\'y\\']', 'rerun', 'E  assert 2 == 3')\n"
        "append(path, 'tests/a.py::test_x[1-\\'y\\']', 'failed', 'E  assert 1 == 2')\n"
        "append(path, 'tests/a.py::test_moody', 'rerun', 'E  the first time')\n"
        "raise SystemExit(1)"
    )
    asked._add("bad", [sys.executable, "-c", script], "make bad", minutes=5)
    asked._add("good", [sys.executable, "-c", ""], "make good", minutes=0)
    asked._add("later", [sys.executable, "-c", ""], "make later", needs=["bad"])
    assert asked.execute() == 1
    said = capsys.readouterr().out
    assert re.search(r"^bad +0\.\d +5  FAILED$", said, re.MULTILINE)
    assert re.search(r"^good +0\.\d +0  over its budget$", said, re.MULTILINE)
    assert re.search(r"^later +0\.0 +not run$", said, re.MULTILINE)
    assert "1 failed:\n  tests/a.py::test_x[1-'y']\n" in said
    assert "    alone: make test-one TEST='tests/a.py::test_x[1-'\"'\"'y'\"'\"']'\n" in said
    assert "1 passed only when run again:\n  tests/a.py::test_moody\n    | E  the first" in said
    assert "bad: `" in said and "  alone: make bad" in said
    assert "All parts passed." not in said
    assert said.endswith("\nFAILED tests/a.py::test_x[1-'y']: assert 2 == 3\n0 passed, 1 failed\n")
    assert "    the first time:\n    | E  assert 2 == 3\n    the second time:\n    | E  a" in said


def test_boards_that_cannot_be_removed_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="failed with exit status 3"):
        run._quietly(sys.executable, "-c", "print('why'); raise SystemExit(3)")
    assert "why" in capsys.readouterr().err
