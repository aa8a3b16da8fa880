"""`llm-provider serve` and `--version`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from llm_provider import __version__
from llm_provider.cli import command
from llm_provider.server import process as server

from ..fake import free_port


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"llm-provider {__version__}\n"


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([], ["--host=127.0.0.1", "--port=8000"]),
        (["--host", "0.0.0.0", "--port", "80"], ["--host=0.0.0.0", "--port=80"]),
    ],
)
def test_serve_starts_the_chat_api(
    monkeypatch: pytest.MonkeyPatch, given: list[str], passed: list[str]
) -> None:
    asked: list[list[str]] = []

    def main(argv: list[str]) -> int:
        asked.append(argv)
        return 7

    monkeypatch.setattr(server, "main", main)
    assert command.main(["serve", *given]) == 7
    assert asked == [passed]


def test_serve_without_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    command_line = [sys.executable, "-m", "llm_provider", "serve"]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("CHAT_API_KEYS_FILE is not set; ")
    with pytest.raises(SystemExit):
        command.main(["serve", "--port", "65536"])
    assert "'65536' is no whole number from 1 to 65535" in capsys.readouterr().err


def test_a_chat_api_that_is_served(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_API_KEYS_FILE", str(keys))
    monkeypatch.setenv("LLM_MODEL", "smoke")
    monkeypatch.setenv("LLM_PROVIDER", "llamacpp")
    port = free_port()
    command_line = [sys.executable, "-m", "llm_provider", "serve", f"--port={port}"]
    with subprocess.Popen(command_line, stdout=subprocess.DEVNULL) as process:
        try:
            assert health(process, port) == {"status": "ok", "version": __version__}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def health(process: subprocess.Popen[bytes], port: int) -> object:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the chat API ended"
        try:
            url = f"http://127.0.0.1:{port}/health"
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: object = json.load(answer)
                return found
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the chat API did not answer")
