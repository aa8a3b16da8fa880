from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp, Ollama, __version__
from llm_provider.api import MAX_BODY_BYTES, create_app
from llm_provider.errors import ConfigurationError
from llm_provider.logs import JsonFormatter

from .fake import (
    ANSWER,
    KEY,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    event,
    free_port,
    serve_api,
    stream_of,
)

CHAT = "/v1/chat/completions"
SECRET = "a-prompt-that-no-log-may-hold"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": SECRET}]}
AUTH = {"Authorization": f"Bearer {KEY}"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error, of which the shape is checked: OpenAI's, and nothing beside it."""
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return error


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("what was waited for did not come about")


async def test_health_is_open_and_ready_reports(api: str, client: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=api) as stranger:
        answer = await stranger.get("/health")
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "ok", "version": __version__},
        )
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "ready": True,
            "provider": "llamacpp",
            "model": MODEL,
            "context_size": 4096,
            "parallel": 2,
        },
    )


async def test_models(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    (entry,) = answer["data"]
    assert isinstance(entry.pop("created"), int)
    assert entry == {"id": MODEL, "object": "model", "owned_by": "edge-llm"}


async def test_a_key_is_needed(api: str) -> None:
    async with httpx.AsyncClient(base_url=api) as stranger:
        for header in (None, "", "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", "Bearer caf\xe9"):
            headers: dict[bytes, bytes]
            headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
            for path in ("/ready", "/v1/models", "/openapi.json", "/nothing", CHAT):
                method = "POST" if path == CHAT else "GET"
                answer = await stranger.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert error_of(answer)["code"] == "invalid_api_key"


async def test_keys_are_rotated_while_running(client: httpx.AsyncClient, keys: Path) -> None:
    async def status(key: str) -> int:
        headers = {"Authorization": f"bearer {key}"}
        return (await client.get("/v1/models", headers=headers)).status_code

    write, rename = keys.write_text, keys.rename
    assert [await status("key-two-of-the-tests"), await status("key-three")] == [200, 401]
    fresh = keys.with_name("fresh")
    fresh.write_text("key-three\n")
    fresh.replace(keys)
    assert [await status("key-two-of-the-tests"), await status("key-three")] == [401, 200]
    # Half-way through being written, or gone: what was in force stays so, and nothing else does.
    write("")
    assert [await status("x"), await status("key-three")] == [401, 200]
    rename(fresh)
    assert [await status("x"), await status("key-three")] == [401, 200]
    write("key-four-four")
    assert [await status("key-three"), await status("key-four-four")] == [401, 200]


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "CHAT_API_KEYS_FILE is not set; it must name a file"),
        ({"CHAT_API_KEYS_FILE": "{}/absent"}, "absent cannot be read"),
        ({"CHAT_API_KEYS_FILE": "{}/empty"}, "empty holds no key; one per line is needed."),
        ({"CHAT_API_KEYS_FILE": "{}/spaced"}, "holds a line that is no key"),
        ({"CHAT_API_KEYS_FILE": "{}/good"}, "No model is named; set LLM_MODEL"),
        ({"CHAT_API_KEYS_FILE": "{}/good", "PARALLEL": "0"}, "PARALLEL is '0'; a whole number"),
        ({"CHAT_API_KEYS_FILE": "{}/good", "CTX_SIZE": "4k"}, "CTX_SIZE is '4k'; a whole number"),
        ({"CHAT_API_KEYS_FILE": "{}/good", "LLM_HOLD_SECONDS": "-1"}, "LLM_HOLD_SECONDS is '-1'"),
    ],
)
def test_refuses_to_start(tmp_path: Path, environ: dict[str, str], sentence: str) -> None:
    (tmp_path / "empty").write_text("# none yet\n\n")
    (tmp_path / "spaced").write_text("two words\n")
    (tmp_path / "good").write_text("a-key\n")
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        create_app({name: value.format(tmp_path) for name, value in environ.items()})


@pytest.mark.parametrize("model", [None, "", "default", MODEL, "gpt-4o", "house"])
async def test_the_served_model_by_all_its_names(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, model: str | None
) -> None:
    async with (
        serve_api(llm, keys, LLM_MODEL_ALIASES="gpt-4o, house") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        answer = await client.post(CHAT, json=BODY | {"model": model, "top_k": 3})
        assert (answer.status_code, answer.json()) == (200, completion())
        assert engine.requests[-1].body == BODY | {"model": MODEL, "top_k": 3, "stream": False}
        refused = await client.post(CHAT, json=BODY | {"model": "gpt-5"})
    assert refused.status_code == 404
    assert error_of(refused) == {
        "message": "The model 'gpt-5' is not served here; served: smoke, gpt-4o, house.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_a_stream_is_passed_on_byte_for_byte(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert b"".join([chunk async for chunk in answer.aiter_raw()]) == stream_of()


async def test_a_stream_comes_as_it_is_made(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    seen = asyncio.Event()

    async def stepwise(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("one"))
        await seen.wait()  # nothing more is sent before the client has this
        await exchange.chunk(b"data: [DONE]\n\n")
        await exchange.chunk(b"")

    engine.on(CHAT, stepwise)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == event("one")
        seen.set()
        assert [chunk async for chunk in chunks] == [b"data: [DONE]\n\n"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The body is not JSON"),
        (b"{", "The body is not JSON"),
        (b"\xff\xfe{", "The body is not JSON"),
        (b'{"messages": [1], "temperature": NaN}', "The body is not JSON"),
        (b'{"messages": [1], "temperature": 1e999}', "The body is not JSON"),
        (b"[" * 100_000, "The body is not JSON"),
        (b"[]", "The body must be a JSON object."),
        (b"{}", "'messages' must be a list of at least one."),
        (b'{"messages": []}', "'messages' must be a list of at least one."),
        (b'{"messages": [1], "model": 1}', "'model' must be a string."),
        (b'{"messages": [1], "stream": "yes"}', "'stream' must be true or false."),
    ],
)
async def test_bodies_that_are_no_requests(
    engine: FakeEngine, client: httpx.AsyncClient, content: bytes, message: str
) -> None:
    answer = await client.post(CHAT, content=content)
    assert answer.status_code == 400
    assert error_of(answer)["message"].startswith(message)
    assert CHAT not in engine.paths()


async def test_a_lone_surrogate_reaches_the_engine(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    content = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    assert (await client.post(CHAT, content=content)).status_code == 200
    assert engine.requests[-1].body["messages"][0]["content"] == "\ud800"


async def test_large_bodies(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    def body(size: int) -> bytes:
        return json.dumps(BODY).encode().ljust(size)

    assert (await client.post(CHAT, content=body(MAX_BODY_BYTES))).status_code == 200
    before = len(engine.requests)
    answer = await client.post(CHAT, content=body(MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "body_too_large"
    assert CHAT not in engine.paths()[before:]


async def test_paths_and_methods_that_are_not(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/nothing")
    assert answer.status_code == 404
    assert error_of(answer)["message"] == "GET /v1/nothing: Not Found."
    answer = await client.get(CHAT)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert error_of(answer)["message"] == f"GET {CHAT}: Method Not Allowed."


@pytest.mark.parametrize(
    ("status", "error", "expected", "code", "message"),
    [
        (400, {"message": "too long", "code": "ctx"}, 400, "ctx", "too long"),
        (422, {"message": "no"}, 400, None, "no"),
        (413, {"message": "no"}, 413, None, "no"),
        (503, {"message": "busy"}, 503, "engine_busy", "refused with status 503: busy"),
        (500, {"message": "jinja"}, 502, "engine_error", "refused with status 500: jinja"),
        (401, {"message": "key"}, 502, "engine_error", "refused with status 401: key"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_refusal(
    engine: FakeEngine,
    client: httpx.AsyncClient,
    status: int,
    error: dict[str, str],
    expected: int,
    code: str | None,
    message: str,
    stream: bool,
) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": error}, status))
    answer = await client.post(CHAT, json=BODY | {"stream": stream})
    assert answer.status_code == expected
    assert ("Retry-After" in answer.headers) == (expected == 503)
    problem = error_of(answer)
    assert problem["code"] == code
    assert problem["message"].endswith(message)


async def test_a_malformed_answer_and_silence(engine: FakeEngine, keys: Path) -> None:
    async with (
        LlamaCpp(model=MODEL, base_url=engine.url, timeout=0.2) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        engine.on(CHAT, lambda x: x.answer(b"<html>"))
        answer = await client.post(CHAT, json=BODY)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "engine_error")
        engine.on(CHAT, lambda x: asyncio.sleep(10))
        answer = await client.post(CHAT, json=BODY)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "engine_timeout")


async def test_a_stream_that_breaks_off_says_so(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))

    engine.on(CHAT, cut)
    raw = (await client.post(CHAT, json=BODY | {"stream": True})).content
    assert raw.startswith(event("Hel"))
    assert b"[DONE]" not in raw
    last = json.loads(raw.rstrip().rsplit(b"data: ", 1)[1])
    assert "broke the connection" in last["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_engine_and_frees_its_slot(
    engine: FakeEngine, client: httpx.AsyncClient, stream: bool
) -> None:
    async def endless(exchange: Exchange) -> None:
        if stream:
            await exchange.begin_stream()
        while True:
            if stream:
                await exchange.chunk(event("on "))
            await asyncio.sleep(0.005)

    engine.on(CHAT, endless)
    for _ in range(3):  # more often than there are slots
        engine.left.clear()
        with pytest.raises(httpx.ReadTimeout):
            async with client.stream(
                "POST", CHAT, json=BODY | {"stream": stream}, timeout=0.2
            ) as answer:
                await answer.aread() if not stream else await anext(answer.aiter_raw())
                raise httpx.ReadTimeout("the client has seen enough")
        await asyncio.wait_for(engine.left.wait(), 1)
    await until(lambda: engine.running == 0)
    engine.on(CHAT, engine.chat)
    assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_queued_client_that_leaves_never_reaches_the_engine(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    free = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await free.wait()
        await exchange.answer(completion())

    engine.on(CHAT, slow)
    running = [asyncio.create_task(client.post(CHAT, json=BODY)) for _ in range(2)]
    await until(lambda: engine.running == 2)
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=BODY, timeout=0.1)
    free.set()
    assert [(await task).status_code for task in running] == [200, 200]
    assert engine.paths().count(CHAT) == 2


async def test_slots_and_the_bounded_queue(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = asyncio.Event()
    order: list[int] = []

    async def slow(exchange: Exchange) -> None:
        order.append(exchange.body["n"])
        await free.wait()
        await exchange.answer(completion())

    engine.on(CHAT, slow)
    tasks = []
    for n in range(2 + 64):
        tasks.append(asyncio.create_task(client.post(CHAT, json=BODY | {"n": n})))
        await asyncio.sleep(0.005)
    await until(lambda: engine.running == 2)
    refused = await client.post(CHAT, json=BODY)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert error_of(refused)["code"] == "queue_full"
    free.set()
    assert {(await task).status_code for task in tasks} == {200}
    assert order == sorted(order)
    assert engine.most_running == 2


async def test_requests_are_held_while_the_engine_loads(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    loading = {"error": {"message": "Loading model"}}
    for path in ("/health", CHAT):
        engine.on(path, lambda x: x.answer(loading, 503))
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert "is loading its model" in answer.json()["error"]["message"]
    held = asyncio.create_task(client.post(CHAT, json=BODY))
    await asyncio.sleep(0.1)
    assert not held.done()
    engine.on(CHAT, engine.chat)
    engine.on("/health", lambda x: x.answer({"status": "ok"}))
    assert (await held).json() == completion()


async def test_a_request_is_held_over_an_engines_restart(llm: LlamaCpp, keys: Path) -> None:
    port = free_port()
    async with LlamaCpp(model=MODEL, base_url=f"http://127.0.0.1:{port}") as restarted:
        engine = FakeEngine()
        async with (
            serve_api(restarted, keys) as url,
            httpx.AsyncClient(base_url=url, headers=AUTH) as client,
        ):
            async with engine.serving(port):
                assert (await client.post(CHAT, json=BODY)).status_code == 200
            # The API still believes it ready: the request itself finds out, and waits.
            held = asyncio.create_task(client.post(CHAT, json=BODY | {"stream": True}))
            await asyncio.sleep(0.1)
            assert not held.done()
            async with engine.serving(port):
                assert (await held).content == stream_of()


@pytest.mark.parametrize("calls_itself_ready", [True, False])
async def test_holding_is_bounded(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, calls_itself_ready: bool
) -> None:
    loading = {"error": {"message": "Loading model"}}
    engine.on(CHAT, lambda x: x.answer(loading, 503))
    if not calls_itself_ready:
        engine.on("/health", lambda x: x.answer(loading, 503))
    async with (
        serve_api(llm, keys, LLM_HOLD_SECONDS="0.4") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        answers = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(5)))
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert error_of(answer)["code"] == "engine_not_ready"
        assert "Loading model" in error_of(answer)["message"]


async def test_ollama_is_told_to_load(engine: FakeEngine, keys: Path) -> None:
    async with (
        Ollama(model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert engine.paths().index("/api/generate") < engine.paths().index(CHAT)
        assert (await client.get("/ready")).json()["provider"] == "ollama"


async def test_ready_says_why_loading_fails(engine: FakeEngine, keys: Path) -> None:
    engine.on("/api/generate", lambda x: x.answer({"error": "model 'smoke' not found"}, 404))
    async with (
        Ollama(model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        await until(lambda: "/api/generate" in engine.paths())
        await asyncio.sleep(0.05)
        answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "model 'smoke' not found" in answer.json()["error"]["message"]


async def test_request_ids(client: httpx.AsyncClient, api: str) -> None:
    first, second = [(await client.get("/health")).headers["X-Request-Id"] for _ in range(2)]
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second
    answer = await client.get("/v1/nothing", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    answer = await client.get("/health", headers={"X-Request-Id": "not one\tword"})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    async with httpx.AsyncClient(base_url=api) as stranger:
        assert (await stranger.get("/ready")).headers["X-Request-Id"]


async def test_logs_are_json_and_hold_no_prompt_answer_or_key(
    engine: FakeEngine, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="llm_provider")
    await client.post(CHAT, json=BODY)
    await client.post(CHAT, json=BODY | {"stream": True})
    await client.get(f"/{KEY}")
    engine.on(CHAT, lambda x: x.answer({"error": {"message": SECRET}}, 400))
    await client.post(CHAT, json=BODY, headers={"X-Request-Id": "mine-2"})
    engine.on(CHAT, lambda x: x.answer(ANSWER.encode()))
    await client.post(CHAT, json=BODY)
    records = [record for record in caplog.records if record.name.startswith("llm_provider")]
    lines = [JsonFormatter().format(record) for record in records]
    requests = [entry for line in lines if (entry := json.loads(line))["message"] == "request"]
    assert [entry["status"] for entry in requests] == [200, 200, 404, 400, 502]
    assert [entry["path"] for entry in requests] == [CHAT, CHAT, None, CHAT, CHAT]
    assert requests[1]["outcome"] == "complete"
    assert requests[1]["first_bytes_seconds"] > 0
    assert (requests[3]["request_id"], requests[3]["outcome"]) == ("mine-2", "Rejected")
    for secret in (SECRET, KEY, ANSWER.split()[1]):
        assert not [line for line in lines if secret in line]


async def test_a_defect_is_answered_and_logged_without_its_text(
    llm: LlamaCpp, keys: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(body: object) -> dict[str, Any]:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(llm, "chat", broken)
    app = create_app({"CHAT_API_KEYS_FILE": str(keys)}, provider=llm)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", headers=AUTH) as client,
    ):
        answer = await client.post(CHAT, json=BODY, headers={"X-Request-Id": "mine-3"})
    assert answer.status_code == 500
    assert "mine-3" in error_of(answer)["message"]
    (record,) = [record for record in caplog.records if record.message == "defect"]
    line = JsonFormatter().format(record)
    assert SECRET not in line
    assert json.loads(line)["exception"] == "RuntimeError"
    assert any("broken" in place for place in json.loads(line)["trace"])
