from __future__ import annotations

import argparse
import asyncio
import fcntl
import io
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider.cli import bench, check
from llm_provider.cli.arguments import build_parser
from llm_provider.cli.command import main
from llm_provider.cli.display import printable
from llm_provider.cli.exit_status import FAILED, NOT_REACHABLE, OK, STOPPED, USAGE

from .. import fake
from ..fake import FakeEngine, free_port, until
from ..scripted import (
    ANSWER,
    DONE,
    KEY,
    MODEL,
    READY,
    Scripted,
    event,
    in_turn,
    paced,
    refusal,
    reply,
    serving,
    sse,
    streamed,
    words,
)

ROOT = Path(__file__).parents[3]
NAMES = ["health", "key", "ready", "models", "context", "chat", "stream", "identity"]
WITHOUT_RICH = "import sys; sys.modules['rich'] = None\n"
COMMAND = "import sys; from llm_provider.cli import main; sys.exit(main(sys.argv[1:]))"


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


async def run(*arguments: str) -> int:
    """The command as typed; in a thread, since it runs a loop of its own."""
    return await asyncio.to_thread(main, list(arguments))


def plain(screen: str) -> str:
    """What a terminal was sent, without what steers it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r\n", "\n")


def on_a_terminal(
    columns: int, *arguments: str, before: str = "", stop_at: str | None = None
) -> tuple[int, str]:
    """Run the command on a terminal of its own; returns its exit status and what it was sent.

    `before` is run by the same Python first; Ctrl-C comes once `stop_at` has been sent.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    deciding = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    environ = {name: value for name, value in os.environ.items() if name not in deciding}
    with subprocess.Popen(
        [sys.executable, "-c", before + COMMAND, *arguments],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env=environ | {"TERM": "xterm-256color", "PYTHONPATH": "src", "PYTHONIOENCODING": "utf-8"},
        cwd=ROOT,
    ) as process:  # fmt: skip
        os.close(theirs)
        sent = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # how a terminal tells that the other side is closed
                break
            if not data:
                break
            sent += data
            if stop_at and stop_at.encode() in sent:
                process.send_signal(signal.SIGINT)
                stop_at = None
        os.close(ours)
        return process.wait(timeout=30), sent.decode()


# check


async def test_check_for_people(api: str, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = await run("check", "--url", api, "--key-file", str(keys), "--answer", fake.ANSWER)
    out = capsys.readouterr().out.splitlines()
    assert status == OK
    assert [line.split()[:2] for line in out[:-1]] == [["✓", name] for name in NAMES]
    assert "provider llamacpp, model smoke" in out[2]
    assert f"{fake.CONTEXT} tokens for a conversation" in out[4]
    assert "tokens/s" in out[6]
    assert out[-1] == f"{api}: all checks passed."


async def test_check_that_fails(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("check", "--answer", "Other.", "--context-size", "8192") == FAILED
    out = capsys.readouterr().out
    assert f"✗ chat     the answer was {ANSWER!r}, not 'Other.'\n" in out
    assert "           wanted: 'Other.', with a finish_reason\n" in out
    assert "wanted: 8192 tokens for a conversation, a number of conversations at once\n" in out
    assert out.endswith(f"{server.url}/v1: failed: context, chat, stream.\n")


async def test_check_does_not_tell_what_it_wanted_of_what_it_could_not_look_at(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reset({"ready": refusal("Loading.", 503, "engine_not_ready")})
    assert await run("check", "--timeout", "0.1") == FAILED
    out = capsys.readouterr().out
    assert "✗ chat     not tried: the engine is not ready\n✗ stream " in out


async def test_check_as_json_with_the_key_from_stdin(
    api: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{fake.KEY}\n"))
    assert await run("check", "--url", api, "--key-file", "-", "--json") == OK
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["url"], report["model"]) == (True, api, fake.MODEL)
    assert report["answer"] == fake.ANSWER
    assert all(set(one) == {"name", "ok", "seen", "wanted"} for one in report["checks"])


async def test_check_asks_what_it_was_told_to(server: Scripted) -> None:
    arguments = ("--prompt", "Well?", "--max-tokens", "9", "--parallel", "4", "--model", MODEL)
    assert await run("check", *arguments, "--context-size", "4096", "--provider=llamacpp") == OK
    bodies = [one.body for one in server.asked if one.body]
    assert len(bodies) == 2
    for body in bodies:
        assert body["messages"] == [{"role": "user", "content": "Well?"}]
        assert (body["max_tokens"], body["model"]) == (9, MODEL)


@pytest.fixture
def engine_file(engine: FakeEngine, tmp_path: Path) -> Path:
    """Of LLM_ENGINE_FILE's form, as it is while a swap holds requests."""
    path = tmp_path / "engine.env"
    lines = ("LLM_PROVIDER=llamacpp", f"LLM_BASE_URL={engine.url}", "LLM_MODEL=smoke")
    path.write_text("\n".join((*lines, "PARALLEL=2", "LLM_HOLD=1")))
    return path


async def test_check_of_an_engine_by_itself(
    engine: FakeEngine,
    engine_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No chat API is there, none is needed, and nobody else can ask this one."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://board:8000/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "for-the-board")
    arguments = ("check", "--engine", str(engine_file), "--answer", fake.ANSWER)
    assert await run(*arguments, "--provider", "llamacpp", "--parallel", str(fake.SLOTS)) == OK
    captured = capsys.readouterr()
    out = captured.out.splitlines()
    assert [line.split()[:2] for line in out[:-1]] == [["✓", name] for name in NAMES]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+: all checks passed\.", out[-1])
    assert captured.err == ""
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert await run(*arguments, "--json") == OK
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["provider"], report["model"]) == (True, "llamacpp", "smoke")
    assert await run(*arguments, "--json", "--provider", "ollama") == FAILED
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not logging.root.manager.disable


async def test_check_of_an_engine_waits_for_it(
    engine: FakeEngine, engine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.loading = True
    assert await run("check", "--engine", str(engine_file), "--timeout", "0.3", "--json") == FAILED
    captured = capsys.readouterr()
    assert "Loading model" in json.loads(captured.out)["checks"][2]["seen"]
    assert captured.err == ""  # not even that it is not ready, which the report says
    command = asyncio.create_task(run("check", "--engine", str(engine_file), "--json"))
    await asyncio.sleep(0.5)
    assert not command.done()
    engine.loading = False
    assert await command == OK


async def test_check_of_an_engine_keeps_its_key_to_itself(
    engine: FakeEngine, engine_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made for the occasion, in a file for this user alone, which is gone afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    goes_on = engine.paused()
    command = asyncio.create_task(run("check", "--engine", str(engine_file), "--json"))
    await until(lambda: engine.running == 1)
    (found,) = (tmp_path / "temporary").iterdir()
    assert found.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", found.read_text())
    goes_on.set()
    assert await command == OK
    assert list((tmp_path / "temporary").iterdir()) == []


# chat


async def test_chat_streams_to_standard_output(
    engine: FakeEngine, api: str, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("chat", "--url", api, "--key-file", str(keys), "Hello there") == OK
    assert capsys.readouterr().out.strip() == fake.ANSWER
    assert engine.requests[-1].body["messages"] == [{"role": "user", "content": "Hello there"}]


async def test_chat_as_json(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    thought = event({"reasoning_content": "Hm."})
    server.reset({"stream": paced(thought, *streamed())})
    arguments = ("--system", "Be brief.", "--max-tokens", "5", "Hello")
    assert await run("chat", "--json", *arguments) == OK
    answer = json.loads(capsys.readouterr().out)
    assert answer.pop("ttft_seconds") > 0
    assert answer.pop("tokens_per_second") > 0
    assert answer == {
        "answer": ANSWER,
        "reasoning": "Hm.",
        "model": MODEL,
        "finish_reason": "stop",
        "usage": {"completion_tokens": 6},
    }
    assert server.asked[-1].body["max_tokens"] == 5
    assert server.asked[-1].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]


async def test_chat_that_is_refused(
    api: str, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("chat", "--url", api, "--key-file", str(keys), "--model", "gpt-5", "Hello")
    sentence = "The model 'gpt-5' is not served here; served: smoke."
    assert await run(*arguments) == FAILED
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == ""
    assert await run(*arguments, "--json") == FAILED
    assert sentence in json.loads(capsys.readouterr().out)["error"]


async def test_chat_that_breaks_off_keeps_what_came(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reset({"stream": sse(event({"content": " Half"}))})
    assert await run("chat", "Hello") == FAILED
    captured = capsys.readouterr()
    assert captured.out == "Half\n"
    assert "without its end." in captured.err
    assert await run("chat", "Hello", "--json") == FAILED
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == "Half"
    assert "without its end." in told["error"]


async def test_chat_tells_of_an_answer_without_text(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    end = event({}, "length")
    server.reset({"stream": sse(event({"reasoning_content": "Hm, "}), end, DONE)})
    assert await run("chat", "Hello") == OK
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "llm-provider: The answer has only reasoning.\n"
    server.reset({"stream": sse(end, DONE)})
    assert await run("chat", "Hello") == OK
    assert capsys.readouterr().err == "llm-provider: The answer has no text.\n"


async def test_what_steers_a_terminal_stays_in_a_pipe(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reset({"stream": sse(event({"content": "a\x1b[2Jb"}, "stop"), DONE)})
    assert await run("chat", "Hello") == OK
    assert capsys.readouterr().out == "a\x1b[2Jb\n"


async def test_a_servers_words_do_not_steer_the_terminal(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reset({"stream": refusal("No\x1b[2J.", 502)})
    assert await run("chat", "Hello") == FAILED
    assert capsys.readouterr().err.endswith("502: No\N{REPLACEMENT CHARACTER}[2J.\n")


# models


async def test_models(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("models") == OK
    assert capsys.readouterr().out == f"{MODEL}\nan-alias\n"
    assert await run("models", "--json") == OK
    assert json.loads(capsys.readouterr().out) == {"models": [MODEL, "an-alias"]}


# bench


async def test_bench_for_people(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("bench", "--requests", "4", "--parallel", "1,2", "--max-tokens", "9")
    assert await run(*arguments, "--prompt", "Well?") == OK
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{MODEL} at {server.url}/v1"
    assert out[1] == "at once   failed  TTFT p50       p95  tok/s  in all    time"
    assert [line.split()[:2] for line in out[2:]] == [["1", "0/4"], ["2", "0/4"]]
    assert all(line.count(" ms") == 2 for line in out[2:])
    bodies = [one.body for one in server.asked if one.body]
    assert len(bodies) == 1 + 4 + 4
    for body in bodies:
        assert body["messages"] == [{"role": "user", "content": "Well?"}]
        assert (body["max_tokens"], body["model"], body["stream"]) == (9, MODEL, True)


async def test_bench_compared_for_people(
    server: Scripted, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = ("--compare", engine.url)
    assert await run("bench", "--requests", "2", "--parallel", "1", *compare) == OK
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [f"A: {MODEL} at {server.url}/v1", f"B: {MODEL} at {engine.url}"]
    assert [out[3].split()[:3], out[4].split()[:2]] == [["1", "A", "0/2"], ["B", "0/2"]]
    assert re.fullmatch(r" +A to B: TTFT [+-][\d.]+ ms, p95 [+-][\d.]+ ms, tok/s x[\d.]+", out[5])
    # The first address's key is not for the second.
    assert not any("authorization" in one.headers for one in engine.requests)


async def test_bench_as_json(
    server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    arguments = ("--requests", "2", "--parallel", "2", "--json", "--compare", server.url)
    assert await run("bench", *arguments, "--compare-key-file", str(key)) == OK
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["compare"]) == (True, server.url)
    (level,) = result["levels"]
    assert (level["parallel"], level["url"]["requests"], level["compare"]["requests"]) == (2, 4, 4)


async def test_bench_with_failures(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    served = iter([paced(*streamed())] * 3)
    server.reset({"stream": lambda: next(served, refusal("Out of order.", 500))()})
    assert await run("bench", "--requests", "4", "--parallel", "1") == FAILED
    out = capsys.readouterr().out
    assert "      1      2/4" in out
    assert f"  2 failed: the server at {server.url} refused with status 500: Out of order.\n" in out
    server.reset({"stream": refusal("Out of order.", 500)})
    assert await run("bench", "--json") == FAILED
    assert "Out of order." in json.loads(capsys.readouterr().out)["error"]


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
            "--engine starts a chat API of its own; leave --url and --key-file out.",
        ),
        (
            ("check", "--engine", "x", "--key-file", "-"),
            "--engine starts a chat API of its own; leave --url and --key-file out.",
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


def test_every_command_takes_json() -> None:
    (commands,) = [
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    assert set(commands.choices) == {"check", "chat", "models", "bench"}
    for parser in commands.choices.values():
        assert "--json" in parser.format_help()


# On a terminal


@pytest.mark.parametrize("columns", [60, 120])
def test_check_on_a_terminal(server: Scripted, columns: int) -> None:
    status, sent = on_a_terminal(columns, "check", "--answer", "Something else.")
    assert status == FAILED
    assert "\x1b[32m✓" in sent
    assert "\x1b[31m✗" in sent
    lines = plain(sent).splitlines()
    shown = [line.split()[1] for line in lines if re.match(r"[✓✗] ", line.split("\r")[-1])]
    assert shown == NAMES
    assert max(len(line.split("\r")[-1]) for line in lines) <= columns
    # Continued below itself, not below its mark.
    assert ("           not 'Something else.'" in plain(sent)) == (columns == 60)
    assert lines[-1].endswith(f"{server.url}/v1: failed: chat, stream.")


def test_chat_on_a_terminal(server: Scripted) -> None:
    text = f"The river runs to the sea, and the sea is\x1b[2J never full. {'東京' * 8}"
    server.reset({"stream": paced(*streamed(text))})
    status, sent = on_a_terminal(20, "chat", "Hello")
    assert status == OK
    assert "waiting for the" in sent
    assert "\x1b[2J" not in sent
    *_, shown = plain(sent).split("\r")
    assert shown.splitlines()[:6] == [
        "The river runs to",
        "the sea, and the sea",
        "is\N{REPLACEMENT CHARACTER}[2J never full.",
        "東京東京東京東京東京",
        "東京東京東京 ",
        "13 tokens, first ",
    ]


def test_bench_on_a_terminal(server: Scripted) -> None:
    status, sent = on_a_terminal(60, "bench", "--requests", "4")
    assert status == OK
    assert "4 at once" in sent
    assert "━" in sent
    lines = [line.split("\r")[-1] for line in plain(sent).splitlines()]
    assert max(map(len, lines)) <= 60
    assert "at once   failed  TTFT p50       p95  tok/s  in all    time" in lines


def test_what_is_waited_for_fits_the_terminal(server: Scripted) -> None:
    words = f"llamacpp at http://engine:8080 is loading its model: {'and loading ' * 10}"
    loading = refusal(words, 503, "engine_not_ready")
    server.reset({"ready": in_turn(loading, loading, reply(READY))})
    status, sent = on_a_terminal(60, "check")
    assert status == OK
    waiting = [line for line in re.split(r"[\r\n]", plain(sent)) if "ready: " in line]
    assert waiting
    assert all(re.fullmatch(r". ready: llamacpp at .*… 0:00:0\d", line) for line in waiting)
    assert max(map(len, waiting)) <= 60


def test_a_terminal_is_left_as_it_was(server: Scripted) -> None:
    server.reset({"ready": refusal("Loading.", 503, "engine_not_ready")})
    status, sent = on_a_terminal(60, "check", stop_at="ready: Loading.")
    assert status == STOPPED
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # the cursor is back
    assert "Traceback" not in sent


@pytest.mark.parametrize("command", [("check",), ("chat", "Hello"), ("bench", "--requests", "2")])
def test_a_terminal_without_rich_gets_plain_lines(
    server: Scripted, command: tuple[str, ...]
) -> None:
    server.reset({"stream": paced(*streamed("All\x1b[2J is well."))})
    status, sent = on_a_terminal(80, *command, before=WITHOUT_RICH)
    assert status == OK
    assert "\x1b" not in sent
    assert "Traceback" not in sent
    if command[0] == "chat":
        assert sent.startswith("All\N{REPLACEMENT CHARACTER}[2J is well. \r\n3 tokens, first after")


def test_nothing_of_rich_is_needed_in_a_pipe(server: Scripted) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RICH + COMMAND, "check"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env=os.environ | {"PYTHONPATH": "src"},
    )  # fmt: skip
    assert done.returncode == OK, done.stderr
    assert done.stderr == ""


def test_marks_on_an_output_that_has_no_such_characters(server: Scripted) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "check", "--answer", "Other."],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env=os.environ | {"PYTHONPATH": "src", "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == FAILED
    assert done.stdout.startswith("ok     health   200")
    assert "FAILED chat     the answer was 'All is well: caf\\xe9" in done.stdout


def test_printable() -> None:
    assert printable("a\tb\nc é 東 🚲") == "a\tb\nc é 東 🚲"
    assert printable("\x1b]0;x\x07\r\x7f\x9b") == "\ufffd]0;x\ufffd\ufffd\ufffd\ufffd"
