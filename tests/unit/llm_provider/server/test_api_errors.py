"""The chat API over real sockets: the engine's refusals and failures, and defects."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp, Ollama
from llm_provider.providers.routes import CHAT
from llm_provider.server.logs import JsonFormatter

from ..fake import AUTH, DONE, MODEL, Exchange, FakeEngine, error_event, error_of, event, serve_api

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES}


MESSAGE = "/api/chat"


# The engine's refusals and failures; test_faults.py has those on the wire.


@pytest.mark.parametrize(
    ("status", "error", "expected", "code", "message"),
    [
        (400, {"message": "too long", "code": "ctx", "param": "n"}, 400, "ctx", "too long"),
        (400, {"message": "too long", "code": 400, "param": 1}, 400, "400", "too long"),
        (400, {"message": '{"error": {"message": "inner"}}'}, 400, None, "inner"),
        (422, {"message": "no"}, 400, None, "no"),
        (413, {"message": "no"}, 413, None, "no"),
        (503, {"message": "busy"}, 503, "engine_busy", "refused with status 503: busy"),
        (429, {"message": "busy"}, 503, "engine_busy", "refused with status 429: busy"),
        (500, {"message": "jinja"}, 502, "engine_error", "refused with status 500: jinja"),
        (401, {"message": "key"}, 502, "engine_error", "refused with status 401: key"),
        (500, {"message": "x is not supported"}, 400, "not_supported_by_engine", "supported"),
        (501, {"message": "none"}, 501, "not_supported_by_engine", f"has no {CHAT} here: none"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_refusal(
    engine: FakeEngine,
    client: httpx.AsyncClient,
    status: int,
    error: dict[str, Any],
    expected: int,
    code: str | None,
    message: str,
    stream: bool,
) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": error}, status))
    for path, body in ((CHAT, BODY), (MESSAGE, {"message": "Hello"})):
        answer = await client.post(path, json=body | {"stream": stream})
        assert answer.status_code == expected
        assert ("Retry-After" in answer.headers) == (expected == 503)
        # It may have run, or will never work: clients that would send it again are told not to.
        assert ("x-should-retry" in answer.headers) == (expected in (501, 502))
        problem = error_of(answer)
        assert problem["code"] == code
        assert problem["message"].endswith(message)
        assert problem["param"] in (None, "n", "messages")


LLAMACPP = {
    "code": 400,
    "message": "request (9000 tokens) exceeds the available context size (4096 tokens), "
    "try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 9000,
    "n_ctx": 4096,
}
SAYS = "exceed_context_size_error"


@pytest.mark.parametrize(
    ("status", "error", "type", "figures"),
    [
        (400, LLAMACPP, SAYS, (9000, 4096)),
        (500, LLAMACPP, SAYS, (9000, 4096)),
        # Ollama passes on what its runner says as JSON in its own message.
        (400, {"message": json.dumps({"error": LLAMACPP}), "type": "x"}, SAYS, (9000, 4096)),
        (
            400,
            {"message": LLAMACPP["message"], "type": "invalid_request_error"},
            "invalid_request_error",
            (9000, 4096),
        ),
        (
            400,
            {
                "message": "This model's maximum context length is 2048 tokens. However, you "
                "requested 2100 tokens (2000 in the messages, 100 in the completion).",
                "type": "BadRequestError",
                "code": 400,
            },
            "BadRequestError",
            (2000, 2048),
        ),
        (
            400,
            {
                "message": "'max_tokens' or 'max_completion_tokens' is too large: 8000. This "
                "model's maximum context length is 4096 tokens and your request has 2778 input "
                "tokens (8000 > 4096 - 2778).",
                "type": "BadRequestError",
            },
            "BadRequestError",
            (2778, 4096),
        ),
        (
            400,
            {
                "message": "You passed 4097 input tokens and requested 0 output tokens. However, "
                "the model's context length is only 4096 tokens.",
            },
            "invalid_request_error",
            (4097, 4096),
        ),
        (413, {"message": "x", "type": SAYS}, SAYS, ()),
        (400, {"message": "the input length exceeds the context length"}, None, ()),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_context(
    engine: FakeEngine,
    client: httpx.AsyncClient,
    status: int,
    error: dict[str, Any],
    type: str | None,
    figures: tuple[int, ...],
    stream: bool,
) -> None:
    """Agents shorten their history by code and figures, which are the same of every engine."""
    engine.on(CHAT, lambda x: x.answer({"error": error}, status))
    answer = await client.post(CHAT, json=BODY | {"stream": stream})
    assert answer.status_code == 400
    assert "Retry-After" not in answer.headers
    names = ("n_prompt_tokens", "n_ctx")[: len(figures)]
    problem = error_of(answer, *names)
    assert problem["code"] == "context_length_exceeded"
    assert problem["type"] == (type or "invalid_request_error")
    assert tuple(problem[name] for name in names) == figures
    assert not problem["message"].startswith("{")


async def test_an_engines_own_type_code_and_figures(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    said = {"message": "no", "type": "grammar_error", "code": "bad_rule", "line": 3, "at": 0.5}
    for odd in ({"deep": {"a": 1}}, {"text": "x"}, {"not a name": 1}, {"huge": 1e999}):
        engine.on(CHAT, lambda x, odd=odd: x.answer({"error": said | odd}, 400))  # type: ignore[misc]
        assert error_of(await client.post(CHAT, json=BODY), "line", "at") == said | {"param": None}
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "no", "type": 1, "code": []}}, 400))
    problem = error_of(await client.post(CHAT, json=BODY))
    assert (problem["type"], problem["code"]) == ("invalid_request_error", None)


@pytest.mark.parametrize("stream", [False, True])
async def test_no_error_tells_an_internal_address(
    engine: FakeEngine,
    llm: LlamaCpp,
    keys: Path,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
) -> None:
    """Clients learn which engine failed, and the log where that is."""
    caplog.set_level(logging.INFO, logger="llm_provider")
    runner = f'Post "{engine.url}/completion": EOF'

    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        raise ConnectionError

    async with (
        serve_api(llm, keys, LLM_HOLD_SECONDS="0.2") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        answers = []
        for status in (400, 500, 501, 503):
            engine.on(CHAT, lambda x, s=status: x.answer({"error": {"message": runner}}, s))  # type: ignore[misc]
            answers.append(await client.post(CHAT, json=BODY | {"stream": stream}))
        engine.on(CHAT, cut)
        answers.append(await client.post(CHAT, json=BODY | {"stream": stream}))
        engine.hangs_up = True
        answers.append(await client.get("/ready"))
        assert answers[-1].json().pop("engine") == engine.url  # what it reports on is no error
        answers.append(await client.post(CHAT, json=BODY | {"stream": stream}))
    for answer in answers:
        problem = json.loads(answer.text.rpartition("data: ")[2])["error"]
        assert "127.0.0.1" not in problem["message"]
        assert str(engine.port) not in problem["message"]
    assert "llamacpp broke the connection" in answers[-1].text
    entries = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    failed = [entry for entry in entries if entry.get("outcome") in ("engine_error", "interrupted")]
    assert failed
    assert {entry["engine"] for entry in failed} == {engine.url}


@pytest.mark.parametrize("include_usage", [False, True])
async def test_no_error_within_a_stream_tells_an_internal_address(
    keys: Path, include_usage: bool
) -> None:
    """As Ollama tells of its runner; all else of the stream stays as it is."""
    words = 'error reading llm response: Post "http://127.0.0.1:41311/completion": EOF'
    text = event('see http://127.0.0.1/x, "error"') + event("on", error=None)
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        engine.on(CHAT, lambda x: x.stream(text, error_event(words), DONE))
        options = {"stream_options": {"include_usage": include_usage}}
        raw = (await client.post(CHAT, json=BODY | options | {"stream": True})).content
    hidden = 'error reading llm response: Post "[address]": EOF'
    # The request may have waited until the engine was ready.
    assert raw.replace(b": queued\n\n", b"") == text + error_event(hidden) + DONE


async def test_an_engines_words_may_be_any_text(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    """It may quote what it was sent, half a character included."""
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "not \ud800, café"}}, 400))
    answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 400
    assert error_of(answer)["message"] == "not \ud800, café"


async def test_a_stream_that_breaks_off_says_so(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel") + event("lo")[:-9])

    engine.on(CHAT, cut)
    raw = (await client.post(CHAT, json=BODY | {"stream": True})).content
    assert raw.startswith(event("Hel") + event("lo")[:-9] + b"\n\n")
    assert DONE not in raw
    last = json.loads(raw.rstrip().rsplit(b"data: ", 1)[1])
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert "broke the connection" in last["error"]["message"]
