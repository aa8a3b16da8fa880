"""The exit statuses of the `llm-provider` command, and wrong usage."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider.cli import bench, check
from llm_provider.cli.arguments import build_parser
from llm_provider.cli.command import main
from llm_provider.cli.exit_status import FAILED, NOT_REACHABLE, STOPPED, USAGE

from ..fake import free_port
from ..scripted import KEY, Scripted, paced, serving, words
from .running import COMMAND, ROOT, run


@pytest.fixture(scope="module")
def serve() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


@pytest.fixture
def server(serve: Scripted, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A chat API, of which the environment tells."""
    serve.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{serve.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return serve


# Exit statuses


@pytest.mark.parametrize("command", ["check", "chat", "models", "bench"])
async def test_not_reachable(command: str, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    arguments = [command, "--url", url, "--key-file", str(keys)]
    arguments += ["Hello"] if command == "chat" else []
    assert await run(*arguments, "--json") == NOT_REACHABLE
    told = json.loads(capsys.readouterr().out)
    if command == "check":
        assert told["ok"] is False
    else:
        assert "is not reachable: the connection was refused." in told["error"]
    assert await run(*arguments) == NOT_REACHABLE
    captured = capsys.readouterr()
    assert "is not reachable: the connection was refused." in captured.out + captured.err


def test_stopped_by_ctrl_c(server: Scripted) -> None:
    server.reset({"stream": paced(*words("on and on " * 1000), seconds=0.05)})
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "chat", "Hello"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "src"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.read(3) == "on "
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == STOPPED
    assert err == ""


def test_a_reader_that_has_had_enough(server: Scripted) -> None:
    server.reset({"stream": paced(*words("on and on " * 1000), seconds=0.01)})
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "chat", "Hello"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "src"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == "on "
        process.stdout.close()
        assert process.wait(timeout=30) == FAILED
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("check",), "No URL is given; use --url, or set OPENAI_BASE_URL."),
        (
            ("check", "--engine", "x", "--url", "http://b"),
            "--engine starts a chat API of its own; leave --url, --key-file and --ca-file out.",
        ),
        (
            ("check", "--engine", "x", "--key-file", "-"),
            "--engine starts a chat API of its own; leave --url, --key-file and --ca-file out.",
        ),
        (
            ("check", "--engine", "x", "--ca-file", "ca.pem"),
            "--engine starts a chat API of its own; leave --url, --key-file and --ca-file out.",
        ),
        (("check", "--engine", "absent"), "The engine file absent cannot be read: "),
        (("check", "--engine", "/dev/null"), "The engine file /dev/null is empty"),
        (("check", "--url", "board:8000"), "The address 'board:8000' is not usable"),
        (("chat", "--url", "http://b", "--key-file", "absent", "Hi"), "key file cannot be read"),
        (("models", "--url", "http://b", "--key-file", "/dev/null"), "/dev/null holds no key"),
        (
            ("bench", "--url", "http://b", "--compare-key-file", "x"),
            "--compare-key-file is for --compare, which is not given.",
        ),
        (
            (
                *("bench", "--url", "http://b", "--compare", "http://c"),
                *("--key-file", "-", "--compare-key-file", "-"),
            ),
            "--key-file and --compare-key-file cannot both be standard input.",
        ),
    ],
)
async def test_wrong_usage(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(*arguments, "--json") == USAGE
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("dance",), "invalid choice: 'dance'"),
        (("chat",), "the following arguments are required: PROMPT"),
        (("check", "--timeout", "-1"), "'-1' is no number of seconds above 0"),
        (("check", "--timeout", "soon"), "'soon' is no number of seconds above 0"),
        (("check", "--parallel", "0"), "'0' is no whole number from 1"),
        (("bench", "--parallel", "1,,4"), "'' is no whole number from 1 to 256"),
        (("bench", "--parallel", "1,1000"), "'1000' is no whole number from 1 to 256"),
        (("bench", "--requests", "1e9"), "'1e9' is no whole number from 1 to 10000"),
    ],
)
def test_wrong_usage_of_the_parser(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == USAGE
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", [(), ("check",), ("chat",), ("models",), ("bench",)])
def test_help_documents_the_exit_status(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "3    the host is not reachable" in capsys.readouterr().out


def test_the_parser_has_the_defaults_of_what_it_starts() -> None:
    def defaults(*arguments: str) -> dict[str, Any]:
        return vars(build_parser().parse_args(list(arguments)))

    asked, wanted = defaults("check"), check.Wanted()
    assert asked["max_tokens"] == wanted.max_tokens
    assert asked["timeout"] == wanted.seconds
    asked, load = defaults("bench"), bench.Load()
    for option, value in (("requests", load.requests), ("parallel", load.levels)):
        assert asked[option] == value
    for option in ("max_tokens", "seconds", "timeout"):
        assert asked[option] == getattr(load, option)


def test_every_command_but_serve_takes_json() -> None:
    (commands,) = [
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    assert set(commands.choices) == {"check", "chat", "models", "bench", "serve"}
    for name, parser in commands.choices.items():
        assert ("--json" in parser.format_help()) == (name != "serve")
