"""Test suites on a board: by hand, and as a part of the verification that a change must pass."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.integration.load import HOST, Board, known_answers
from tests.playing import client_file, finished, message, play

SMOKE = {"llm_model": "smoke"}
pytestmark = pytest.mark.usefixtures("settled")


def suite(name: str, *words: str) -> tuple[int, str]:
    """Run a suite as a client of the board: the exit status, and what it printed."""
    script = f'. "$0" && exec {sys.executable} -m llm_suite "$@"'
    done = finished(["sh", "-c", script, str(client_file(HOST)), name, *words])
    return done.returncode, done.stdout + done.stderr


def test_the_smoke_model_passes_its_suite_and_fails_the_other(tmp_path: Path) -> None:
    done = play("site.yml", HOST, **SMOKE, llm_suite=["smoke"])
    assert done.returncode == 0, done.stdout
    status, printed = suite("smoke")
    assert status == 0, printed
    assert "4 passed, 0 failed." in printed
    junit = tmp_path / "junit.xml"
    status, printed = suite("smoke-fails", "--junit", str(junit))
    assert status == 1, printed
    assert "0 passed, 9 failed." in printed
    (found,) = ET.parse(junit).getroot()  # noqa: S314
    assert (found.get("tests"), found.get("failures"), found.get("errors")) == ("9", "9", "0")

    # A host in place that fails a suite fails, and keeps its release.
    done = play("playbooks/verify.yml", HOST, **SMOKE, llm_suite=["smoke-fails"])
    assert done.returncode == 2, done.stdout
    assert "conversations failed: 9 of 9 of smoke-fails" in message(done)
    assert "This run has replaced no release, so the host keeps its own" in message(done)
    assert "changed=0" in done.stdout


def test_a_change_that_fails_its_suite_is_rolled_back(board: Board) -> None:
    before = board.current()["number"]
    done = play("site.yml", HOST, **SMOKE, llm_suite=["smoke-fails"])
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert "pi-01: the verification failed: conversations failed: 9 of 9 of smoke-fails" in said
    assert "smoke-fails, equals: equals: expected the answer 'I am here.'" in said
    assert f"Release {before} serves again." in said
    assert board.asked() == known_answers()["smollm2-135m"]
    assert [each["action"] for each in board.history()[-2:]] == ["deploy", "rollback"]


def test_a_suite_that_is_missing_is_refused_before_anything_is_changed(board: Board) -> None:
    before = board.containers(), board.history()
    done = play("site.yml", HOST, **SMOKE, llm_suite=["smoke-fail"])
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert "pi-01: llm_suite is invalid: The suite 'smoke-fail' is missing: " in said
    assert "Did you mean smoke-fails?" in said
    assert (board.containers(), board.history()) == before
