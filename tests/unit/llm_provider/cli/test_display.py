"""The `llm-provider` command on a terminal, and where there is none."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from llm_provider.cli.display import printable
from llm_provider.cli.exit_status import FAILED, OK, STOPPED

from ..scripted import KEY, READY, Scripted, in_turn, paced, refusal, reply, serving, streamed
from .running import COMMAND, NAMES, ROOT

WITHOUT_RICH = "import sys; sys.modules['rich'] = None\n"


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
    assert "at once   failed TTFT p50      p95 prompt tok/s in all  time" in lines


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
