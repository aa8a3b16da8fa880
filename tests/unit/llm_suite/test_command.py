"""The command: table, JUnit XML, JSON, exit statuses; and the suites of the project."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from fastapi import Response

from llm_suite.command import main
from llm_suite.expectations import _JUDGES
from llm_suite.reading import read_suite
from tests.unit.llm_provider.scripted import KEY, Scripted, in_turn, refusal, reply, whole
from tests.unit.llm_suite.conftest import SENTENCE, Write

ROOT = Path(__file__).parents[3]
SUITES = ROOT / "suites"
EVIL = "\x1b]0;gone\x07\x1b[2J\r\u202egnp \x9b\ufffe\ud800 ]]> <b> & good"
ONE: dict[str, Any] = {"user": "Hello", "expect": {"contains": "good"}}


def suite(*conversations: dict[str, Any]) -> dict[str, Any]:
    given = conversations or ({"name": "one", "turns": [ONE]},)
    return {"title": "Mine", "conversations": list(given)}


def run(*words: object) -> int:
    return main(["--folder", str(SUITES), *map(str, words)])


def test_a_table(
    client: Scripted, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.reset({"chat": in_turn(reply(whole("Bad.")), reply(whole("Good.")))})
    two = {"name": "a-longer-name", "turns": [ONE]}
    path = write(suite({"name": "one", "turns": [ONE]}, two))
    assert run(path) == 1
    lines = re.sub(r" +\d+\.\d\d s", " N s", capsys.readouterr().out).splitlines()
    assert lines == [
        "mine: Mine, answered by smoke",
        "        conversation   turns      time",
        "FAILED  one                1 N s",
        "        contains: expected an answer with 'good', found 'Bad.'",
        "passed  a-longer-name      1 N s",
        f"mine at {client.url}/v1: 1 passed, 1 failed.",
    ]


def test_tries_are_told(
    client: Scripted, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.reset({"chat": in_turn(reply(whole("Bad.")), reply(whole("Good.")))})
    junit = tmp_path / "new/junit.xml"
    assert run(write(suite()), "--tries", 3, "--junit", junit) == 0
    out = capsys.readouterr().out
    assert re.search(r"passed  one +1 +\d\.\d\d s  at try 2\n", out)
    assert "try 1: contains: expected an answer with 'good', found 'Bad.'" in out
    assert "1 passed, 0 failed; passed only when asked again: one." in out
    text = ET.parse(junit).findtext("testsuite/testcase/system-out")  # noqa: S314
    assert text is not None
    assert text.startswith("try 1 of 2: failed\nasked: Hello\n")
    assert "try 2 of 2: passed" in text


def test_junit(client: Scripted, write: Write, tmp_path: Path) -> None:
    replies = [reply(whole("Good.")), reply(whole("Bad.")), refusal("No.", 400)]
    client.reset({"chat": in_turn(*replies)})
    names = ("passes", "fails", "ends")
    path = write(suite(*({"name": name, "turns": [ONE]} for name in names)))
    junit = tmp_path / "junit.xml"
    assert run(path, "--junit", junit) == 1
    root = ET.parse(junit).getroot()  # noqa: S314
    assert root.tag == "testsuites"
    (found,) = root
    counts = {"name": "mine", "tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    assert {name: found.get(name) for name in counts} == counts
    assert {each: root.get(each) for each in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    properties = {each.get("name"): each.get("value") for each in found.iter("property")}
    assert properties == {"title": "Mine", "url": f"{client.url}/v1", "model": "smoke"}
    passes, fails, ends = found.findall("testcase")
    assert [each.get("name") for each in (passes, fails, ends)] == list(names)
    assert passes.get("classname") == "llm_suite.mine"
    assert passes.find("failure") is None and passes.find("error") is None
    failure, error = fails.find("failure"), ends.find("error")
    assert failure is not None and error is not None
    assert failure.get("message") == "contains: expected an answer with 'good', found 'Bad.'"
    assert str(error.get("message")).endswith("refused with status 400: No")


def test_an_answer_harms_no_terminal_and_no_file(
    client: Scripted, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither where it passes nor where it fails; a lone surrogate is in no encoding."""
    client.reset({"chat": lambda: _raw(whole(EVIL, model="\x1b[2J"))})
    junit = tmp_path / "junit.xml"
    bad = {"name": "bad", "turns": [{"user": "Hello", "expect": {"contains": "x", "seconds": 9}}]}
    path = write(suite({"name": "one", "turns": [ONE]}, bad))
    assert run(path, "--junit", junit) == 1
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\r\u202e\x9b\ud800\ufffe")
    assert "1 passed, 1 failed" in out
    texts = "".join(ET.parse(junit).getroot().itertext())  # noqa: S314
    assert "]]> <b> & good" in texts
    assert not set(texts) & set("\x1b\x07\u202e\x9b")
    assert run(path, "--json") == 1
    assert capsys.readouterr().out.isascii()


def _raw(body: dict[str, Any]) -> Any:
    return Response(json.dumps(body), media_type="application/json")


def test_on_a_terminal(client: Scripted, write: Write) -> None:
    client.reset({"chat": lambda: _raw(whole(EVIL))})
    main_end, terminal = pty.openpty()
    path = write(suite({"name": "one", "turns": [{"user": "?", "expect": {"contains": "x"}}]}))
    command = [sys.executable, "-m", "llm_suite", str(path)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "400"}
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(main_end, 65536)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
    os.close(main_end)
    assert process.returncode == 1
    assert b"FAILED" in shown and b"\x1b[" in shown  # its own colours
    assert b"\x1b]0;" not in shown and b"\x07" not in shown and b"\x1b[2J" not in shown


def test_json(client: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("smoke", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    (found,) = report["suites"]
    assert (found["name"], found["model"], found["ok"]) == ("smoke", "smoke", True)
    assert all(each["ok"] and each["problems"] == [] for each in found["conversations"])


def test_the_key_of_a_file(
    server: Scripted, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text(f"# mine\n\n{KEY}\n")
    server.reset({"chat": reply(whole("Good."))})
    path = write(suite())
    assert run(path, "--url", server.url, "--key-file", key) == 0
    assert {each.authorization for each in server.asked} == {f"Bearer {KEY}"}
    assert run(path, "--url", server.url) == 1
    assert "llm-suite: the chat API at" in capsys.readouterr().err
    key.write_text("#\n")
    assert run(path, "--url", server.url, "--key-file", key) == 2
    assert capsys.readouterr().err == f"llm-suite: The key file {key} holds no key.\n"


def test_wrong_usage(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write(suite()), write("title: ''", "bad")
    cases: list[tuple[list[object], int, str]] = [
        ([], 2, "No suite is named. --list shows those that there are."),
        ([good], 2, "No URL is given; use --url, or set OPENAI_BASE_URL."),
        ([good, "none"], 2, "The suite 'none' is missing: in "),
        ([good, bad], 2, f"{bad} is invalid: line 1: "),
        ([good, "--url", "http://127.0.0.1:9"], 3, "the chat API at http://127.0.0.1:9 is not"),
    ]
    for words, status, message in cases:
        assert run(*words) == status
        assert capsys.readouterr().err.startswith(f"llm-suite: {message}")
    assert run("none", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"].startswith("The suite 'none' is missing")
    for option, value in (("tries", 0), ("tries", 11), ("timeout", -1), ("timeout", "x")):
        with pytest.raises(SystemExit) as caught:
            run(good, f"--{option}={value}")
        assert caught.value.code == 2


def test_a_report_that_cannot_be_written(
    client: Scripted, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    client.reset({"chat": reply(whole("Good."))})
    assert run(write(suite()), "--junit", tmp_path / "file/junit.xml") == 2
    assert "junit.xml cannot be written: " in capsys.readouterr().err


def test_validation_asks_nobody(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("chat", "--validate") == 0
    assert run(write("title: 1", "bad"), "--validate") == 2
    assert run("--list") == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == sorted(
        path.stem for path in SUITES.glob("*.yml")
    )


# The suites of the project.


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yml")), ids=lambda path: path.stem)
def test_a_suite_of_the_project_is_valid_and_documented(path: Path) -> None:
    read_suite(path)
    assert f"| `{path.stem}` |" in (ROOT / "docs/suites.md").read_text()


def test_the_smoke_model_passes_one_suite_and_fails_every_conversation_of_another(
    client: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    models = yaml.safe_load((ROOT / "models.yml").read_text())["models"]
    assert models["smoke"]["proof"]["answer"] == SENTENCE
    assert run("smoke") == 0
    assert "4 passed, 0 failed" in capsys.readouterr().out
    assert run("smoke-fails") == 1
    assert "0 passed, 9 failed" in capsys.readouterr().out


def test_the_suite_that_fails_has_every_expectation_but_calls_of_tools() -> None:
    """Engines differ in what they do with tools for a model that knows none."""
    found = read_suite(SUITES / "smoke-fails.yml")
    turns = [turn for each in found.conversations for turn in each.turns]
    assert {name for turn in turns for name in turn.expect} == set(_JUDGES) - {"tool_call"}


def test_a_wheel_has_the_schema() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "suite.schema.json" in data["package-data"]["llm_suite"]
