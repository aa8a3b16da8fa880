from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.responses import Response

from llm_provider.cli.check import Check, Report, Wanted, Watcher, check

from .. import fake
from ..fake import FakeEngine, free_port
from ..scripted import (
    ANSWER,
    DONE,
    KEY,
    MODEL,
    READY,
    Change,
    Scripted,
    event,
    in_turn,
    paced,
    refusal,
    reply,
    serving,
    sse,
    streamed,
    whole,
    words,
)

PATIENCE = 1.0
NAMES = ["health", "key", "ready", "models", "context", "chat", "stream", "identity"]


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


async def checked(server: Scripted, change: Change | None = None, **wanted: Any) -> Report:
    server.reset(change)
    return await check(server.url, KEY, Wanted(**{"seconds": 5, **wanted}))


async def test_all_is_well_against_the_chat_api_itself(engine: FakeEngine, api: str) -> None:
    told: list[str] = []

    class Listening(Watcher):
        def begins(self, name: str) -> None:
            told.append(f"{name} ...")

        def ends(self, outcome: Check) -> None:
            told.append(outcome.name)

    report = await check(
        api,
        fake.KEY,
        Wanted(
            provider="llamacpp",
            model=fake.MODEL,
            answer=fake.ANSWER,
            context_size=fake.CONTEXT,
            parallel=2,
        ),
        watcher=Listening(),
    )
    assert [outcome for outcome in report.checks if not outcome.ok] == []
    assert report.ok
    assert report.reachable
    assert told == [said for name in NAMES for said in (f"{name} ...", name)]
    assert (report.provider, report.model, report.answer) == (
        "llamacpp",
        fake.MODEL,
        fake.ANSWER,
    )
    assert (report.context_size, report.parallel) == (fake.CONTEXT, 2)
    assert report.ttft_seconds is not None
    assert report.ttft_seconds > 0
    assert report.tokens_per_second is not None
    assert report.tokens_per_second > 0
    chat, stream = [one.body for one in engine.requests if one.path.startswith("/v1/chat")]
    for name, value in (("temperature", 0), ("seed", 0), ("max_tokens", 64)):
        assert chat[name] == stream[name] == value


async def test_the_report_as_json(server: Scripted) -> None:
    report = json.loads(json.dumps((await checked(server)).as_dict()))
    assert [one["name"] for one in report.pop("checks")] == NAMES
    assert report.pop("ttft_seconds") > 0
    assert report.pop("tokens_per_second") > 0
    assert report == {
        "ok": True,
        "url": server.url,
        "provider": "llamacpp",
        "model": MODEL,
        "context_size": 4096,
        "parallel": 4,
        "gpu_share": None,
        "answer": ANSWER,
    }


async def test_white_space_around_an_answer_does_not_count(server: Scripted) -> None:
    report = await checked(server, {"chat": reply(whole(f" {ANSWER}\n"))}, answer=f"{ANSWER} ")
    assert report.ok
    assert report.answer == ANSWER


@pytest.mark.parametrize(
    ("name", "change", "wanted", "seen"),
    [
        (
            "health",
            {"health": refusal("no such page", 404)},
            {},
            "the chat API at {url} refused with status 404: no such page",
        ),
        (
            "health",
            {"health": lambda: Response("<html>")},
            {},
            "the chat API at {url} answered 200 with what is not a JSON object: '<html>'.",
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
            "key",
            {"wrong": reply({"data": [{"id": MODEL}]})},
            {},
            "a request with a wrong key was answered 200, not 401",
        ),
        (
            "ready",
            {"ready": refusal("The engine is loading.", 503, "engine_not_ready")},
            {"model": MODEL, "seconds": PATIENCE},
            "not ready after 1 s: the chat API at {url} is not ready: The engine is loading.",
        ),
        (
            "ready",
            {"ready": refusal("A key is needed.", 401)},
            {"model": MODEL},
            "the chat API at {url} refused with status 401: A key is needed.",
        ),
        (
            "ready",
            {"ready": reply({"a": 1})},
            {"model": MODEL},
            "/ready answered 200, but ready is None",
        ),
        ("ready", {}, {"provider": "ollama"}, "the provider is llamacpp, not ollama"),
        (
            "ready",
            {
                "ready": reply(READY | {"model": "old"}),
                "chat": reply(whole(model="old")),
                "stream": sse(*streamed(model="old")),
            },
            {"model": MODEL},
            "the model is old, not smoke",
        ),
        (
            "models",
            {"models": reply({"data": [{"id": "a"}, {"id": "b"}]})},
            {"model": MODEL},
            "the model smoke is not among those listed: a, b",
        ),
        (
            "models",
            {"models": reply({"data": [{"id": "a"}, {"id": "b"}]})},
            {},
            "the model smoke is not among those listed: a, b",
        ),
        (
            "models",
            {"models": reply({"data": []})},
            {},
            "the model smoke is not among those listed: none",
        ),
        (
            "models",
            {"models": reply({"hello": 1})},
            {},
            "the chat API at {url} answered /v1/models without a list of models.",
        ),
        (
            "context",
            {"ready": reply(READY | {"context_size": 1024})},
            {"context_size": 4096},
            "1024 tokens for a conversation, 4 conversations at once; the context is not 4096",
        ),
        (
            "context",
            {},
            {"context_size": 2048},
            "4096 tokens for a conversation, 4 conversations at once; the context is not 2048",
        ),
        (
            "context",
            {},
            {"parallel": 8},
            "4096 tokens for a conversation, 4 conversations at once; the slots are not 8",
        ),
        (
            "context",
            {"ready": reply(READY | {"context_size": None})},
            {},
            "/ready has no context size: it is None",
        ),
        (
            "context",
            {"ready": reply(READY | {"parallel": "4"})},
            {"parallel": 4},
            "/ready has no number of slots: it is '4'",
        ),
        (
            "chat",
            {"chat": reply(whole("Paris."))},
            {"answer": ANSWER},
            f"the answer was 'Paris.', not {ANSWER!r}",
        ),
        ("chat", {"chat": reply(whole(" "))}, {}, "an empty answer"),
        (
            "chat",
            {"chat": reply(whole(None, "length", reasoning_content="Well, "))},
            {"max_tokens": 32},
            "no text, only 6 characters of reasoning: the model reasons, and --max-tokens 32 "
            "did not reach to its answer",
        ),
        (
            "chat",
            {"chat": reply(whole("", "length", reasoning="Hm."))},
            {},
            "no text, only 3 characters of reasoning: the model reasons, and --max-tokens 64 "
            "did not reach to its answer",
        ),
        (
            "chat",
            {"chat": reply(whole(finish_reason=None))},
            {},
            f"{ANSWER!r}, without a finish_reason",
        ),
        (
            "chat",
            {"chat": refusal("The engine failed.", 502)},
            {},
            "the chat API at {url} refused with status 502: The engine failed.",
        ),
        (
            "stream",
            {
                "stream": sse(
                    event({"content": "Par"}), event({"content": "is"}), event({}, "stop"), DONE
                )
            },
            {"answer": ANSWER},
            f"the answer was 'Paris', not {ANSWER!r}",
        ),
        (
            "stream",
            {"stream": sse(*reversed(words()), DONE)},
            {"answer": ANSWER},
            f"the answer was {' '.join(reversed(ANSWER.split()))!r}, not {ANSWER!r}",
        ),
        (
            "stream",
            {"stream": sse(event({"content": ANSWER}, "stop"), DONE)},
            {},
            "the whole answer came in one chunk; more than one is wanted",
        ),
        (
            "stream",
            {"stream": sse(*words(), DONE)},
            {},
            "6 chunks, without a finish_reason",
        ),
        ("stream", {"stream": sse(event({}, "stop"), DONE)}, {}, "an empty answer"),
        (
            "stream",
            {
                "stream": sse(
                    event({"reasoning_content": "Well"}),
                    event({"reasoning_content": "!"}),
                    event({}, "length"),
                    DONE,
                )
            },
            {},
            "no text, only 5 characters of reasoning: the model reasons, and --max-tokens 64 "
            "did not reach to its answer",
        ),
        (
            "stream",
            {"stream": sse(*streamed()[:-1])},
            {},
            "the chat API at {url} ended its stream after "
            f"{sum(map(len, streamed()[:-1]))} bytes, without its end.",
        ),
        (
            "stream",
            {"stream": sse(event({"content": "a"}), b'data: {"error": {"message": "cut"}}\n\n')},
            {},
            "The stream broke off with an error: cut",
        ),
        (
            "stream",
            {"stream": sse(b"data: {\n\n", DONE)},
            {},
            "An event of the stream is not JSON: '{'.",
        ),
        (
            "stream",
            {"stream": reply(whole())},
            {},
            "the chat API at {url} answered a streamed request with application/json, "
            "not text/event-stream.",
        ),
        (
            "identity",
            {"chat": reply(whole(model="another"))},
            {},
            "an answer calls its model 'another'; served is 'smoke'",
        ),
        (
            "identity",
            {"stream": sse(*streamed(model="another"))},
            {},
            "an answer calls its model 'another'; served is 'smoke'",
        ),
        (
            "identity",
            {"chat": reply(whole(model=None))},
            {},
            "an answer calls its model None; served is 'smoke'",
        ),
    ],
)
async def test_each_check_fails_and_says_why(
    server: Scripted, name: str, change: Change, wanted: dict[str, Any], seen: str
) -> None:
    report = await checked(server, change, **wanted)
    assert not report.ok
    assert report.reachable
    outcome = {outcome.name: outcome for outcome in report.checks}[name]
    assert (outcome.ok, outcome.seen) == (False, seen.replace("{url}", server.url))
    assert outcome.tried
    # And nothing else is blamed, but what cannot be looked at without it.
    for other in report.checks:
        assert other.ok or other.name == name or not other.tried


async def test_what_was_not_tried_says_so_and_does_not_pass(server: Scripted) -> None:
    loading = refusal("Loading.", 503, "engine_not_ready")
    report = await checked(server, {"ready": loading}, seconds=PATIENCE)
    seen = {one.name: one.seen for one in report.checks if not one.ok}
    assert list(seen) == NAMES[2:]
    assert seen.pop("models") == (
        f"not tried: no model is known to look for; listed: {MODEL}, an-alias"
    )
    for name in ("context", "chat", "stream"):
        assert seen[name] == "not tried: the engine is not ready"
    assert seen["identity"] == "not tried: no answer came"


async def test_a_context_that_the_engine_rounded_up_is_enough(server: Scripted) -> None:
    ready = reply(READY | {"context_size": 1024})
    assert (await checked(server, {"ready": ready}, context_size=1000)).ok
    # Not the next one: that much more memory was not asked for.
    assert not (await checked(server, {"ready": ready}, context_size=768)).ok


async def test_ollama_may_name_the_model_with_its_tag(server: Scripted) -> None:
    report = await checked(server, {"chat": reply(whole(model=f"{MODEL}:latest"))})
    assert report.ok
    assert report.checks[-1].seen == f"model {MODEL} and {MODEL}:latest"


@pytest.mark.parametrize("share", [0.62, 0])
async def test_the_share_on_the_gpu_is_reported_and_not_judged(
    server: Scripted, share: float
) -> None:
    report = await checked(server, {"ready": reply(READY | {"gpu_share": share})})
    assert (report.ok, report.gpu_share) == (True, share)


async def test_the_report_does_not_repeat_credentials(server: Scripted) -> None:
    server.reset()
    url = server.url.replace("//", "//user:S3CR3T@")
    report = await check(f"{url}/v1", KEY, Wanted(seconds=PATIENCE))
    assert report.url == server.url.replace("//", "//***@") + "/v1"
    assert "S3CR3T" not in str(report)
    assert report.ok


async def test_without_a_key_it_cannot_pass(server: Scripted) -> None:
    server.reset()
    report = await check(server.url, None, Wanted(seconds=PATIENCE))
    assert [one.name for one in report.checks if one.ok] == ["health", "key"]


@pytest.mark.parametrize("code", ["engine_not_ready", "stopping"])
async def test_it_waits_for_readiness_and_tells(server: Scripted, code: str) -> None:
    waited: list[str] = []

    class Listening(Watcher):
        def waits(self, reason: str) -> None:
            waited.append(reason)

    server.reset({"ready": in_turn(refusal("Not yet.", 503, code), reply(READY))})
    report = await check(server.url, KEY, Wanted(seconds=5), watcher=Listening())
    assert report.ok
    assert waited == [f"the chat API at {server.url} is not ready: Not yet."]


async def test_a_host_that_is_not_reachable_passes_nothing() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    report = await check(url, KEY, Wanted(seconds=PATIENCE))
    assert not report.reachable
    assert [one.name for one in report.checks] == NAMES
    assert not any(one.ok for one in report.checks)
    seen = {one.name: one.seen for one in report.checks}
    assert seen["health"] == (
        f"the chat API at {url} is not reachable: the connection was refused."
    )
    for name in ("key", "ready", "models"):
        assert seen[name] == "not tried: the host is not reachable"
    assert (report.provider, report.model, report.answer) == (None, None, None)


async def test_an_answer_that_comes_at_once_has_no_rate(server: Scripted) -> None:
    report = await checked(server, {"stream": sse(*streamed())})
    assert report.ok
    assert report.ttft_seconds is not None
    assert report.tokens_per_second is None
    assert report.checks[6].seen.endswith(", all at once")


async def test_reasoning_before_the_answer_counts_for_its_pace(server: Scripted) -> None:
    thoughts = [event({"reasoning_content": "so "})] * 4
    report = await checked(server, {"stream": paced(*thoughts, *streamed())})
    assert report.ok
    assert report.checks[6].seen.startswith("6 chunks, ")
