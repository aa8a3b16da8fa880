from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from llm_provider.cli import FAILED, NOT_REACHABLE, OK, USAGE, main

from .fake import ANSWER, KEY, MODEL, Exchange, FakeEngine, event, free_port


async def run(*arguments: str) -> int:
    """The command as typed; in a thread, since it runs a loop of its own."""
    return await asyncio.to_thread(main, list(arguments))


async def test_check_for_people(api: str, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = await run("check", "--url", api, "--key-file", str(keys), "--answer", ANSWER)
    out = capsys.readouterr().out.splitlines()
    assert status == OK
    assert [line.split()[:2] for line in out[:-1]] == [
        ["✓", name] for name in ("health", "key", "ready", "models", "chat", "stream")
    ]
    assert "provider llamacpp, model smoke, context 4096, 2 in parallel" in out[2]
    assert "tokens/s" in out[5]
    assert out[-1] == f"{api}: all checks passed."


async def test_check_that_fails(api: str, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = await run("check", "--url", api, "--key-file", str(keys), "--answer", "Other.")
    out = capsys.readouterr().out
    assert status == FAILED
    assert f"✗ chat    the answer was {ANSWER!r}, not 'Other.'\n" in out
    assert "wanted: 'Other.', with a finish_reason\n" in out
    assert out.endswith(f"{api}: failed: chat, stream.\n")


async def test_check_as_json_with_the_key_from_stdin(
    api: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    assert await run("check", "--url", api, "--key-file", "-", "--json") == OK
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["url"], report["model"]) == (True, api, MODEL)
    assert report["answer"] == ANSWER
    assert all(set(one) == {"name", "ok", "seen", "wanted"} for one in report["checks"])


async def test_not_reachable(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert await run("check", "--url", url, "--key-file", str(keys), "--json") == NOT_REACHABLE
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert await run("chat", "--url", url, "Hello") == NOT_REACHABLE
    assert "is not reachable: the connection was refused." in capsys.readouterr().err
    assert await run("models", "--url", url) == NOT_REACHABLE


async def test_chat_streams_to_the_terminal(
    engine: FakeEngine, api: str, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("chat", "--url", api, "--key-file", str(keys), "Hello there") == OK
    assert capsys.readouterr().out.strip() == ANSWER
    assert engine.requests[-1].body["messages"] == [{"role": "user", "content": "Hello there"}]


async def test_chat_that_is_refused_or_breaks_off(
    engine: FakeEngine, api: str, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("chat", "--url", api, "--key-file", str(keys))
    assert await run(*arguments, "--model", "gpt-5", "Hello") == FAILED
    assert "The model 'gpt-5' is not served here; served: smoke." in capsys.readouterr().err

    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Half"))

    engine.on("/v1/chat/completions", cut)
    assert await run(*arguments, "Hello") == FAILED
    captured = capsys.readouterr()
    assert captured.out == "Half\n"
    assert "The stream broke off with an error" in captured.err


async def test_models_with_url_and_key_from_the_environment(
    api: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{api}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert await run("models") == OK
    assert capsys.readouterr().out == f"{MODEL}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("check",), "No URL is given; use --url, or set OPENAI_BASE_URL."),
        (("check", "--url", "board:8000"), "The address 'board:8000' is not usable"),
        (("chat", "--url", "http://b", "--key-file", "absent", "Hi"), "key file cannot be read"),
        (("models", "--url", "http://b", "--key-file", "/dev/null"), "/dev/null holds no key"),
    ],
)
async def test_wrong_usage(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(*arguments) == USAGE
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [(), ("dance",), ("chat",), ("check", "--url", "http://b", "--timeout", "-1")]
)
def test_wrong_usage_of_the_parser(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == USAGE


@pytest.mark.parametrize("arguments", [("--help",), ("check", "--help")])
def test_help_documents_the_exit_status(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 0
    assert "3  the host is not reachable" in capsys.readouterr().out
