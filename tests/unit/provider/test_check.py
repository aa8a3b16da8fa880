from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from llm_provider.check import Report, Wanted, _rate, check

from .fake import ANSWER, KEY, MODEL, FakeEngine, completion, event, free_port, stream_of

URL = "http://board:8000"
PATIENCE = 0.2
DONE = b"data: [DONE]\n\n"
Change = dict[str, Callable[[], Response]]


def sse(*parts: bytes) -> Callable[[], Response]:
    return lambda: Response(b"".join(parts), media_type="text/event-stream")


def reply(body: Any, status: int = 200) -> Callable[[], Response]:
    return lambda: JSONResponse(body, status)


def refusal(message: str, status: int, code: str | None = None) -> Callable[[], Response]:
    return reply({"error": {"message": message, "code": code}}, status)


READY = {
    "ready": True,
    "provider": "llamacpp",
    "model": MODEL,
    "context_size": 4096,
    "parallel": 4,
}


def scripted(change: Change) -> httpx.ASGITransport:
    """A chat API that answers as it should, save where `change` says otherwise."""
    answers: Change = {
        "health": reply({"status": "ok", "version": "0.1.0"}),
        "stranger": refusal("A key is needed.", 401),
        "ready": reply(READY),
        "models": reply({"data": [{"id": MODEL}]}),
        "chat": reply(completion()),
        "stream": sse(stream_of()),
        **change,
    }
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def answer(request: Request, path: str) -> Response:
        name = path.removeprefix("v1/")
        if path != "health" and request.headers.get("Authorization") != f"Bearer {KEY}":
            name = "stranger"
        elif path == "v1/chat/completions":
            name = "stream" if (await request.json())["stream"] else "chat"
        return answers[name]()

    return httpx.ASGITransport(app)


async def checked(change: Change, **wanted: Any) -> Report:
    return await check(URL, KEY, Wanted(seconds=PATIENCE, **wanted), transport=scripted(change))


async def test_all_is_well_against_the_chat_api_itself(engine: FakeEngine, api: str) -> None:
    told: list[str] = []
    report = await check(
        api,
        KEY,
        Wanted(provider="llamacpp", model=MODEL, answer=ANSWER),
        tell=lambda outcome: told.append(outcome.name),
    )
    assert [outcome for outcome in report.checks if not outcome.ok] == []
    assert report.ok
    assert report.reachable
    assert told == ["health", "key", "ready", "models", "chat", "stream"]
    assert (report.provider, report.model, report.answer) == ("llamacpp", MODEL, ANSWER)
    assert report.ttft_seconds is not None
    assert 0 < report.ttft_seconds < 5
    assert report.tokens_per_second is not None
    assert report.tokens_per_second > 0
    chat, stream = [one.body for one in engine.requests if one.path.startswith("/v1/chat")]
    for name, value in (("temperature", 0), ("seed", 0), ("max_tokens", 64)):
        assert chat[name] == stream[name] == value
    assert set(report.as_dict()) == {
        "ok",
        "url",
        "provider",
        "model",
        "answer",
        "ttft_seconds",
        "tokens_per_second",
        "checks",
    }
    assert json.loads(json.dumps(report.as_dict()))["checks"][0] == {
        "name": "health",
        "ok": True,
        "seen": "200, version 0.1.0",
        "wanted": "GET /health answered 200",
    }


async def test_white_space_around_an_answer_does_not_count() -> None:
    report = await checked({"chat": reply(completion(f" {ANSWER}\n"))}, answer=f"{ANSWER} ")
    assert report.ok
    assert report.answer == ANSWER


@pytest.mark.parametrize(
    ("name", "change", "wanted", "seen"),
    [
        (
            "health",
            {"health": refusal("no such page", 404)},
            {},
            f"the chat API at {URL} refused with status 404: no such page",
        ),
        (
            "health",
            {"health": lambda: Response("<html>")},
            {},
            f"the chat API at {URL} answered 200 with what is not a JSON object: '<html>'.",
        ),
        (
            "key",
            {"stranger": reply({"data": [{"id": MODEL}]})},
            {},
            "a request without a key was answered 200, not 401",
        ),
        (
            "key",
            {"stranger": refusal("no", 403)},
            {},
            "a request without a key was answered 403, not 401",
        ),
        (
            "ready",
            {"ready": refusal("The engine is loading.", 503, "engine_not_ready")},
            {},
            f"not ready after 0.2 s: the chat API at {URL} is not ready: The engine is loading.",
        ),
        (
            "ready",
            {"ready": refusal("A key is needed.", 401)},
            {},
            f"the chat API at {URL} refused with status 401: A key is needed.",
        ),
        ("ready", {"ready": reply({"a": 1})}, {}, "/ready answered 200, but ready is None"),
        ("ready", {}, {"provider": "ollama"}, "the provider is llamacpp, not ollama"),
        (
            "ready",
            {"ready": reply(READY | {"model": "old"})},
            {"model": MODEL},
            "the model is old, not smoke",
        ),
        (
            "models",
            {"models": reply({"data": [{"id": "a"}, {"id": "b"}]})},
            {"model": MODEL},
            "the model smoke is not among those served: a, b",
        ),
        (
            "models",
            {"models": reply({"data": [{"id": "a"}, {"id": "b"}]})},
            {},
            "2 models are served, not one: a, b",
        ),
        ("models", {"models": reply({"data": []})}, {}, "0 models are served, not one: none"),
        (
            "models",
            {"models": reply({"hello": 1})},
            {},
            f"the chat API at {URL} answered /v1/models without a list of models.",
        ),
        (
            "chat",
            {"chat": reply(completion("Paris."))},
            {"answer": ANSWER},
            f"the answer was 'Paris.', not {ANSWER!r}",
        ),
        ("chat", {"chat": reply(completion(" "))}, {}, "an empty answer"),
        (
            "chat",
            {"chat": reply(completion(finish_reason=None))},
            {},
            f"{ANSWER!r}, without a finish_reason",
        ),
        (
            "chat",
            {"chat": refusal("The engine failed.", 502)},
            {},
            f"the chat API at {URL} refused with status 502: The engine failed.",
        ),
        (
            "stream",
            {"stream": sse(event("Par"), event("is"), event(finish_reason="stop"), DONE)},
            {"answer": ANSWER},
            f"the answer was 'Paris', not {ANSWER!r}",
        ),
        (
            "stream",
            {"stream": sse(*(event(f"{w} ") for w in reversed(ANSWER.split())), DONE)},
            {"answer": ANSWER},
            f"the answer was {' '.join(reversed(ANSWER.split()))!r}, not {ANSWER!r}",
        ),
        (
            "stream",
            {"stream": sse(event(ANSWER, "stop"), DONE)},
            {},
            "the whole answer came in one chunk; more than one is wanted",
        ),
        (
            "stream",
            {"stream": sse(*(event(f"{w} ") for w in ANSWER.split()), DONE)},
            {},
            "6 chunks, without a finish_reason",
        ),
        ("stream", {"stream": sse(DONE)}, {}, "an empty answer"),
        (
            "stream",
            {"stream": sse(stream_of().removesuffix(DONE))},
            {},
            f"the chat API at {URL} ended its stream after "
            f"{len(stream_of()) - len(DONE)} bytes, without [DONE].",
        ),
        (
            "stream",
            {"stream": sse(event("a"), b'data: {"error": {"message": "cut off"}}\n\n')},
            {},
            "The stream broke off with an error: cut off",
        ),
        (
            "stream",
            {"stream": sse(b"data: {\n\n", DONE)},
            {},
            "An event of the stream is not JSON: '{'.",
        ),
        (
            "stream",
            {"stream": reply(completion())},
            {},
            f"the chat API at {URL} answered a streamed request with application/json, "
            "not text/event-stream.",
        ),
    ],
)
async def test_each_check_fails_and_says_why(
    name: str, change: Change, wanted: dict[str, Any], seen: str
) -> None:
    report = await checked(change, **wanted)
    assert not report.ok
    assert report.reachable
    outcome = {outcome.name: outcome for outcome in report.checks}[name]
    assert (outcome.ok, outcome.seen) == (False, seen)
    # And nothing else is blamed, but what cannot be looked at without it.
    for other in report.checks:
        assert other.ok or other.name == name or other.seen == "not tried: the engine is not ready"


async def test_a_wrong_key_must_be_refused_too() -> None:
    transport = scripted({})

    class AnyKeyWillDo(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if "Authorization" in request.headers:
                request.headers["Authorization"] = f"Bearer {KEY}"
            return await transport.handle_async_request(request)

    report = await check(URL, KEY, Wanted(), transport=AnyKeyWillDo())
    assert [(one.name, one.seen) for one in report.checks if not one.ok] == [
        ("key", "a request with a wrong key was answered 200, not 401")
    ]


async def test_without_a_key_it_cannot_pass() -> None:
    report = await check(URL, None, Wanted(), transport=scripted({}))
    assert [one.name for one in report.checks if one.ok] == ["health", "key"]


async def test_it_waits_for_readiness() -> None:
    answers = iter([refusal("Loading.", 503, "engine_not_ready")()])
    report = await check(
        URL,
        KEY,
        Wanted(seconds=5),
        transport=scripted({"ready": lambda: next(answers, None) or reply(READY)()}),
    )
    assert report.ok


async def test_a_host_that_is_not_reachable_passes_nothing() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    report = await check(url, KEY, Wanted(seconds=PATIENCE))
    assert not report.reachable
    assert [(one.name, one.ok, one.seen) for one in report.checks] == [
        (
            "health",
            False,
            f"the chat API at {url} is not reachable: the connection was refused.",
        ),
        ("key", False, "not tried: the host is not reachable"),
        ("ready", False, "not tried: the host is not reachable"),
        ("models", False, "not tried: the host is not reachable"),
        ("chat", False, "not tried: the engine is not ready"),
        ("stream", False, "not tried: the engine is not ready"),
    ]
    assert (report.provider, report.model, report.answer) == (None, None, None)


async def test_an_answer_that_comes_at_once_has_no_rate() -> None:
    report = await checked({})
    assert report.ok
    assert report.ttft_seconds is not None
    assert report.tokens_per_second is None
    assert report.checks[-1].seen.endswith(", all at once")


@pytest.mark.parametrize(
    ("tokens", "times", "rate"),
    [
        (5, [1.0, 1.5, 2.0, 2.5, 3.0], 2.0),
        (4, [1.0, 1.0, 2.0, 2.0], 2.0),  # two at first: only the two after them took time
        (10, [1.0, 2.0], 5.0),  # usage tells of more tokens than there were pieces
        (3, [1.0, 1.0, 1.0], None),
    ],
)
def test_rate(tokens: int, times: list[float], rate: float | None) -> None:
    assert _rate(tokens, times) == rate
