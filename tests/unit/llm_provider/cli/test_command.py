"""The `llm-provider` command, as a person or a script runs it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_provider.cli.exit_status import FAILED, OK

from .. import fake
from ..fake import FakeEngine, until
from ..scripted import (
    ANSWER,
    DONE,
    KEY,
    MODEL,
    Scripted,
    event,
    paced,
    refusal,
    serving,
    sse,
    streamed,
)
from .running import NAMES, run


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
    assert await run("check", "--timeout", "1") == FAILED
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
    assert await run(*arguments, "--provider", "llamacpp", "--parallel", "2") == OK
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
    assert await run("check", "--engine", str(engine_file), "--timeout", "1.5", "--json") == FAILED
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
    assert out[1] == "at once   failed TTFT p50      p95 prompt tok/s in all  time"
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


async def test_bench_says_how_far_it_is(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--requests", "2", "--parallel", "1,2", "--json", "--progress")
    assert await run("bench", *arguments) == OK
    said = capsys.readouterr()
    assert len(json.loads(said.out)["levels"]) == 2
    # The end of each level, in any case.
    lines = said.err.splitlines()
    assert {"1 at once: 2 of 2", "2 at once: 2 of 2"} <= set(lines)


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
