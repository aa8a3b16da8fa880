"""The chat API's routes over real sockets, before a fake engine."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp, Ollama, __version__
from llm_provider.api import MAX_BODY_BYTES, create_app
from llm_provider.base import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.engines import PROVIDERS
from llm_provider.errors import ConfigurationError

from .fake import (
    ANSWER,
    AUTH,
    CONTEXT,
    DONE,
    KEY,
    MODEL,
    SLOTS,
    WORDS,
    Exchange,
    FakeEngine,
    delta_event,
    error_event,
    error_of,
    event,
    serve_api,
    stream_of,
    until,
    usage_of,
)

MESSAGES = [{"role": "user", "content": "Hello"}]
BODY: dict[str, Any] = {"messages": MESSAGES}
SENT = BODY | {"model": MODEL}
MESSAGE = "/api/chat"
POSTS = {
    CHAT: BODY,
    COMPLETIONS: {"prompt": "Hello"},
    EMBEDDINGS: {"input": "Hello"},
    RESPONSES: {"input": "Hello"},
    MESSAGE: {"message": "Hello"},
}


async def test_health_is_open_and_ready_reports(
    api: str, engine: FakeEngine, client: httpx.AsyncClient
) -> None:
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
            "context_size": CONTEXT,
            "parallel": SLOTS,
            "gpu_share": None,
            "engine": engine.url,
            "in_flight": 0,
            "leaving": 0,
            "queued": 0,
            "held": 0,
            "holding": False,
        },
    )


async def test_ready_tells_what_was_asked_for_where_the_engine_does_not_tell(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.on("/props", lambda x: x.answer({}))
    report = (await client.get("/ready")).json()
    assert (report["context_size"], report["parallel"]) == (4096, 2)


# Keys.


async def test_a_key_is_needed(api: str) -> None:
    async with httpx.AsyncClient(base_url=api) as stranger:
        for header in (None, "", "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", "Bearer caf\xe9"):
            headers: dict[bytes, bytes]
            headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
            for path in ("/ready", "/metrics", "/v1/models", "/openapi.json", "/nothing", *POSTS):
                method = "POST" if path in POSTS else "GET"
                answer = await stranger.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert error_of(answer)["code"] == "invalid_api_key"


async def test_keys_are_rotated_while_running(client: httpx.AsyncClient, keys: Path) -> None:
    async def status(key: str) -> int:
        headers = {"Authorization": f"bearer {key}"}
        return (await client.get("/v1/models", headers=headers)).status_code

    write, rename, write_bytes = keys.write_text, keys.rename, keys.write_bytes
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
    write_bytes(b"\xff\xfe\n")
    assert [await status("x"), await status("key-three")] == [401, 200]
    write("key-four-four")
    assert [await status("key-three"), await status("key-four-four")] == [401, 200]


async def test_rotating_keys_drops_nobody(
    engine: FakeEngine, client: httpx.AsyncClient, keys: Path
) -> None:
    """Neither who was let in before, running or in line, nor who comes with a key that stays."""
    goes_on = engine.paused()
    other = {"Authorization": "Bearer key-two-of-the-tests"}
    tasks = [
        asyncio.create_task(client.post(CHAT, json=BODY | {"stream": n % 2 == 0}, headers=other))
        for n in range(6)
    ]
    await until(lambda: engine.running == 2)
    fresh = keys.with_name("fresh")
    for n in range(20):
        fresh.write_text(f"key-{n}\n{KEY}\n")
        fresh.replace(keys)
        assert (await client.get("/v1/models")).status_code == 200
    refused = await client.post(CHAT, json=BODY, headers=other)
    assert refused.status_code == 401
    goes_on.set()
    assert {(await task).status_code for task in tasks} == {200}


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "CHAT_API_KEYS_FILE is not set; it must name a file"),
        ({"CHAT_API_KEYS_FILE": "{}/absent"}, "absent cannot be read"),
        ({"CHAT_API_KEYS_FILE": "{}/empty"}, "empty is empty; wanted: one API key per line."),
        ({"CHAT_API_KEYS_FILE": "{}/spaced"}, "holds a line that is no key"),
        ({"CHAT_API_KEYS_FILE": "{}/good"}, "No model is named; set LLM_MODEL"),
        *(
            ({"CHAT_API_KEYS_FILE": "{}/good", "LLM_MODEL": "m", **wrong}, sentence)
            for wrong, sentence in (
                ({"PARALLEL": "0"}, "PARALLEL is '0'; a whole number"),
                ({"LLM_HOLD_SECONDS": "-1"}, "LLM_HOLD_SECONDS is '-1'"),
                ({"LLM_DRAIN_SECONDS": "x"}, "LLM_DRAIN_SECONDS is 'x'"),
                ({"CTX_SIZE": "4k"}, "CTX_SIZE is '4k'; a whole number"),
                ({"LLM_ENGINE_FILE": "{}/absent"}, "The engine file"),
                ({"LLM_ENGINE_FILE": "{}/empty"}, "empty is empty; wanted: LLM_PROVIDER="),
                ({"LLM_ENGINE_FILE": "{}/spaced"}, "LLM_ENGINE_FILE holds 'two words'; known are:"),
            )
        ),
    ],
)
def test_refuses_to_start(tmp_path: Path, environ: dict[str, str], sentence: str) -> None:
    (tmp_path / "empty").write_text("# none yet\n\n")
    (tmp_path / "spaced").write_text("two words\n")
    (tmp_path / "good").write_text("a-key\n")
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        create_app({name: value.format(tmp_path) for name, value in environ.items()})


# The model's names.


async def test_models(llm: LlamaCpp, keys: Path) -> None:
    async with (
        serve_api(llm, keys, LLM_MODEL_ALIASES=f"gpt-4o, meta/llama ,,{MODEL}") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        answer = (await client.get("/v1/models")).json()
        assert answer["object"] == "list"
        assert [entry["id"] for entry in answer["data"]] == [MODEL, "gpt-4o", "meta/llama"]
        for entry in answer["data"]:
            assert isinstance(entry["created"], int)
            assert set(entry) == {"id", "object", "created", "owned_by"}
            assert (await client.get(f"/v1/models/{entry['id']}")).json() == entry
        assert (await client.get("/v1/models/default")).json()["id"] == "default"
        for name in ("gpt-5", "meta", "llama/", "%20", "caf%C3%A9", "%ff"):
            absent = await client.get(f"/v1/models/{name}")
            assert absent.status_code == 404
            assert error_of(absent)["code"] == "model_not_found"
            assert error_of(absent)["message"].endswith("served: smoke, gpt-4o, meta/llama.")
        nothing = await client.get("/v1/models/")
        assert nothing.status_code == 404
        assert error_of(nothing)["message"] == "GET /v1/models/: Not Found."


@pytest.mark.parametrize("model", [None, "", "default", MODEL, "gpt-4o", "house"])
async def test_the_served_model_by_all_its_names(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, model: str | None
) -> None:
    async with (
        serve_api(llm, keys, LLM_MODEL_ALIASES="gpt-4o, house") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        for path, body in POSTS.items():
            before = len(engine.posts)
            answer = await client.post(path, json=body | {"model": model, "top_k": 3})
            assert answer.status_code == (501 if path == EMBEDDINGS else 200)
            assert engine.posts[before].body["model"] == MODEL
            assert engine.posts[before].body["top_k"] == 3
            refused = await client.post(path, json=body | {"model": "gpt-5"})
            assert refused.status_code == 404
            assert error_of(refused) == {
                "message": "The model 'gpt-5' is not served here; served: smoke, gpt-4o, house.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
            assert len(engine.posts) == before + 1


# Answers.


async def test_a_whole_answer_is_the_engines_own(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    raw = b' {"choices" : [{"message": {"content": "caf\\u00e9"}}], "timings":{} }\n'
    engine.on(CHAT, lambda x: x.answer(raw))
    body = SENT | {"temperature": 0, "tools": [{"a": "field"}], "tomorrow": [None]}
    answer = await client.post(CHAT, json=body)
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["Content-Type"] == "application/json"
    assert engine.asked == [body | {"stream": False}]


async def test_streams_are_passed_on_byte_for_byte(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}):
        body = SENT | options | {"stream": True, "seed": 1}
        async with client.stream("POST", CHAT, json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert answer.headers["Cache-Control"] == "no-cache"
            raw = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert raw == stream_of(usage=bool(options))
        assert engine.asked[-1] == body


@pytest.mark.parametrize("name", ["ollama", "vllm"])
@pytest.mark.parametrize(
    ("options", "usage"),
    [
        ({}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": {"include_usage": False}}, False),
        ({"stream_options": {"include_usage": True}}, True),
    ],
)
async def test_usage_is_asked_for_to_be_counted_and_given_to_who_asked(
    keys: Path, name: str, options: dict[str, Any], usage: bool
) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        answer = await client.post(CHAT, json=BODY | options | {"stream": True})
        assert answer.content == stream_of(kind=name, usage=usage)
        assert engine.asked[-1]["stream_options"] == {"include_usage": True}
        metrics = (await client.get("/metrics")).text
    assert f'edge_llm_tokens_total{{direction="out"}} {len(WORDS)}.0' in metrics


async def test_a_stream_comes_as_it_is_made(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    seen = asyncio.Event()

    async def stepwise(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("one"))
        await seen.wait()  # nothing more is sent before the client has this
        await exchange.chunk(DONE)
        await exchange.chunk(b"")

    engine.on(CHAT, stepwise)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == event("one")
        seen.set()
        assert [chunk async for chunk in chunks] == [DONE]


async def test_other_routes_are_passed_through(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(COMPLETIONS, json={"prompt": "Hello", "max_tokens": 5})
    assert answer.json()["choices"][0]["text"] == ANSWER
    answer = await client.post(COMPLETIONS, json={"prompt": ["Hello"], "stream": True})
    assert answer.content.endswith(DONE)
    answer = await client.post(RESPONSES, json={"input": "Hello"})
    assert answer.json()["output"][0]["content"][0]["text"] == ANSWER
    answer = await client.post(RESPONSES, json={"input": "Hello", "stream": True})
    assert b"event: response.completed\n" in answer.content
    assert b"error" not in answer.content.replace(b'"error": null', b"")
    assert [request.body for request in engine.posts] == [
        {"prompt": "Hello", "max_tokens": 5, "model": MODEL, "stream": False},
        {"prompt": ["Hello"], "model": MODEL, "stream": True},
        {"input": "Hello", "model": MODEL, "stream": False},
        {"input": "Hello", "model": MODEL, "stream": True},
    ]


async def test_routes_that_the_engine_has_not(keys: Path) -> None:
    for name, kind in PROVIDERS.items():
        async with (
            FakeEngine(name).serving() as engine,
            kind(model=MODEL, base_url=engine.url) as llm,
            serve_api(llm, keys) as url,
            httpx.AsyncClient(base_url=url, headers=AUTH) as client,
        ):
            engine.without(RESPONSES)
            for path in (EMBEDDINGS, RESPONSES):
                answer = await client.post(path, json={"input": "Hello"})
                assert answer.status_code == 501
                problem = error_of(answer)
                assert problem["code"] == "not_supported_by_engine"
                assert problem["message"].startswith(f"{name} has no {path} here: ")


async def test_what_ollama_cannot_do_is_the_requests_fault(keys: Path) -> None:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        for stream in (False, True):
            answer = await client.post(CHAT, json=BODY | {"n": 2, "stream": stream})
            assert answer.status_code == 400
            assert error_of(answer) == {
                "message": "ollama cannot do n 2; leave 'n' out.",
                "type": "invalid_request_error",
                "param": "n",
                "code": "not_supported_by_engine",
            }
        assert engine.asked == []
        # Told to end at the context's end, since it would not by itself.
        await client.post(CHAT, json=BODY)
        assert engine.asked[0]["max_tokens"] == CONTEXT


# A message in, an answer out.


async def test_a_message(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(MESSAGE, json={"message": "Hello"})
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "answer": ANSWER,
            "model": MODEL,
            "finish_reason": "stop",
            "usage": usage_of(ANSWER),
        },
    )
    body = {"message": "Hello", "system": "Be brief.", "temperature": 0, "stream": False}
    assert (await client.post(MESSAGE, json=body)).json()["answer"] == ANSWER
    system = {"role": "system", "content": "Be brief."}
    assert engine.asked == [
        {"messages": MESSAGES, "model": MODEL, "stream": False},
        {"messages": [system, *MESSAGES], "temperature": 0, "model": MODEL, "stream": False},
    ]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_message_streamed(keys: Path, name: str) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH) as client,
    ):
        engine.on(CHAT, lambda x: x.stream(event(" "), event("  A") + event(" b"), DONE))
        answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.text == 'data: {"delta": "A"}\n\ndata: {"delta": " b"}\n\ndata: [DONE]\n\n'
        engine.on(CHAT, engine.chat)
        answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
    *deltas, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert [json.loads(line.removeprefix("data: "))["delta"] for line in deltas] == WORDS


async def test_a_message_whose_answer_breaks_off(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel"))
        await asyncio.sleep(0.05)
        await exchange.chunk(error_event("Context size has been exceeded."))
        await exchange.chunk(b"")

    engine.on(CHAT, cut)
    answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
    assert answer.text.startswith('data: {"delta": "Hel"}\n\n')
    assert DONE not in answer.content
    last = json.loads(answer.text.rpartition("data: ")[2])
    assert "Context size has been exceeded" in last["error"]["message"]


async def test_a_message_without_an_answer(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    engine.on(CHAT, lambda x: x.answer({"choices": [{"message": message}]}))
    assert (await client.post(MESSAGE, json={"message": "Hello"})).json() == {
        "answer": "",
        "model": None,
        "finish_reason": None,
        "usage": None,
    }
    engine.on(CHAT, lambda x: x.stream(delta_event({"tool_calls": [1]}), DONE))
    answer = await client.post(MESSAGE, json={"message": "Hello", "stream": True})
    assert answer.content == DONE


@pytest.mark.parametrize("wrong", [{"choices": []}, {}, {"choices": [{"message": {"content": 1}}]}])
async def test_a_message_whose_answer_is_none(
    engine: FakeEngine, client: httpx.AsyncClient, wrong: object
) -> None:
    engine.on(CHAT, lambda x: x.answer(wrong))
    answer = await client.post(MESSAGE, json={"message": "Hello"})
    assert (answer.status_code, error_of(answer)["code"]) == (502, "engine_error")


# Requests that are none.

LIST = "'messages' must be a list of at least one message."
TEXT = "must be a text or a list."


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (CHAT, b"", "The body is not JSON"),
        (CHAT, b"{", "The body is not JSON"),
        (CHAT, b"\xff\xfe{", "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "temperature": NaN}', "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "temperature": -Infinity}', "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "temperature": 1e999}', "The body is not JSON"),
        (CHAT, b'{"messages": [{}], "n": ' + b"9" * 5000 + b"}", "The body is not JSON: a number"),
        (CHAT, b"[" * 100_000, "The body is nested too deeply."),
        (CHAT, b"[]", "The body must be a JSON object."),
        (CHAT, b'"messages"', "The body must be a JSON object."),
        (CHAT, b"{}", LIST),
        (CHAT, b'{"messages": []}', LIST),
        (CHAT, b'{"messages": {}}', LIST),
        (CHAT, b'{"messages": ["Hello"]}', LIST),
        (CHAT, b'{"messages": [{}], "model": 1}', "'model' must be a string."),
        (CHAT, b'{"messages": [{}], "stream": "yes"}', "'stream' must be true or false."),
        (COMPLETIONS, b'{"prompt": 1}', f"'prompt' {TEXT}"),
        (COMPLETIONS, b'{"prompt": ""}', f"'prompt' {TEXT}"),
        (EMBEDDINGS, b"{}", f"'input' {TEXT}"),
        (RESPONSES, b'{"input": {}}', f"'input' {TEXT}"),
        (MESSAGE, b'{"messages": [{}]}', "'message' must be a text."),
        (MESSAGE, b'{"message": ["Hello"]}', "'message' must be a text."),
        (MESSAGE, b'{"message": ""}', "'message' must be a text."),
        (MESSAGE, b'{"message": "Hello", "system": 1}', "'system' must be a string."),
    ],
)
async def test_bodies_that_are_no_requests(
    engine: FakeEngine, client: httpx.AsyncClient, path: str, content: bytes, message: str
) -> None:
    answer = await client.post(path, content=content)
    assert answer.status_code == 400
    assert error_of(answer)["message"].startswith(message)
    assert not engine.posts


async def test_any_text_reaches_the_engine(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    for content, text in (
        (b'"\\ud800"', "\ud800"),  # a lone surrogate
        (b'"\\u0000"', "\0"),
        ('"café 東京 🚲"'.encode(), "café 東京 🚲"),
        ('"café 東京 🚲"'.encode("ascii", "backslashreplace").replace(b"U000", b"u"), None),
    ):
        body = b'{"messages": [{"role": "user", "content": ' + content + b"}]}"
        answer = await client.post(CHAT, content=body)
        if text is not None:
            assert answer.status_code == 200
            assert engine.asked[-1]["messages"][0]["content"] == text


@pytest.mark.parametrize("depth", [*range(150, 1000, 50)])
async def test_deep_bodies(engine: FakeEngine, client: httpx.AsyncClient, depth: int) -> None:
    """They reach the engine, or are refused as what they are; never a failure of this API."""
    deep = b"[" * depth + b"]" * depth
    answer = await client.post(CHAT, content=b'{"messages": [{}], "deep": ' + deep + b"}")
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert error_of(answer)["message"] == "The body is nested too deeply."
        assert CHAT not in engine.paths()
    else:
        assert json.dumps(engine.asked[0]["deep"]).encode() == deep


async def test_large_bodies(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    def body(size: int) -> bytes:
        return json.dumps(BODY).encode().ljust(size)

    assert (await client.post(CHAT, content=body(MAX_BODY_BYTES))).status_code == 200

    async def parts() -> Any:
        for _ in range(10):
            yield body(MAX_BODY_BYTES // 5)

    for content in (body(MAX_BODY_BYTES + 1), body(7 * MAX_BODY_BYTES), parts()):
        before = len(engine.asked)
        answer = await client.post(CHAT, content=content)
        assert answer.status_code == 413
        assert error_of(answer)["code"] == "body_too_large"
        assert len(engine.asked) == before


async def test_paths_and_methods_that_are_not(client: httpx.AsyncClient) -> None:
    for path in ("/v1/nothing", "/", "/docs", "/redoc", "/v1/chat/completions/x"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert error_of(answer)["message"] == f"GET {path}: Not Found."
    for path in POSTS:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert error_of(answer)["message"] == f"GET {path}: Method Not Allowed."


# The engine's refusals and failures; test_faults.py has those on the wire.


@pytest.mark.parametrize(
    ("status", "error", "expected", "code", "message"),
    [
        (400, {"message": "too long", "code": "ctx", "param": "n"}, 400, "ctx", "too long"),
        (400, {"message": "too long", "code": 400, "param": 1}, 400, None, "too long"),
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
        problem = error_of(answer)
        assert problem["code"] == code
        assert problem["message"].endswith(message)
        assert problem["param"] in (None, "n", "messages")


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


# Clients that leave, or read slowly.


async def endless(exchange: Exchange) -> None:
    if exchange.body["stream"]:
        await exchange.begin_stream()
    while True:
        if exchange.body["stream"]:
            await exchange.chunk(event("on "))
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGE])
async def test_a_client_that_leaves_stops_the_engine_and_frees_its_slot(
    engine: FakeEngine, client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    engine.on(CHAT, endless)
    body = POSTS[path] | {"stream": stream}
    for _ in range(3):  # more often than there are slots
        engine.left.clear()
        if stream:
            async with client.stream("POST", path, json=body) as answer:
                await anext(answer.aiter_raw())
        else:
            request = asyncio.create_task(client.post(path, json=body))
            await until(lambda: engine.running == 1)
            request.cancel()
        await asyncio.wait_for(engine.left.wait(), 20)
    await until(lambda: engine.running == 0)
    engine.on(CHAT, engine.chat)
    assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_client_that_leaves_while_it_sends(
    engine: FakeEngine, api: str, client: httpx.AsyncClient
) -> None:
    port = int(api.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert engine.asked == []
    assert 'outcome="client_left"' in (await client.get("/metrics")).text


async def test_a_client_that_reads_slowly_holds_the_engine_up_and_loses_nothing(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    whole = event("x" * 100_000) * 400 + DONE
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin_stream()
        for start in range(0, len(whole), 100_000):
            await exchange.chunk(whole[start : start + 100_000])
            sent = start
        await exchange.chunk(b"")

    engine.on(CHAT, flood)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        received = bytearray(await anext(chunks))
        before = -1
        while sent != before:  # until it has to wait
            before = sent
            await asyncio.sleep(0.2)
        assert sent < len(whole) * 3 / 4
        async for chunk in chunks:
            received += chunk
    assert bytes(received) == whole


async def test_a_client_that_stalls_is_gone(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_provider.relay.STALL_SECONDS", 0.2)

    async def flood(exchange: Exchange) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.chunk(event("x" * 100_000))

    engine.on(CHAT, flood)
    async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        chunks = answer.aiter_raw()
        await anext(chunks)
        await asyncio.wait_for(engine.left.wait(), 5)
        del chunks
    metrics = (await client.get("/metrics")).text
    assert 'outcome="client_stalled"' in metrics
    assert "edge_llm_requests_in_flight 0.0" in metrics


# The rest.


async def test_request_ids(client: httpx.AsyncClient, api: str) -> None:
    first, second = [(await client.get("/health")).headers["X-Request-Id"] for _ in range(2)]
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second
    for stream in (False, True):
        headers = {"X-Request-Id": f"mine-{stream}"}
        answer = await client.post(CHAT, json=BODY | {"stream": stream}, headers=headers)
        assert answer.headers.get_list("X-Request-Id") == [f"mine-{stream}"]
    answer = await client.get("/v1/nothing", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    for odd in ("not one\tword", "x" * 65, "", "caf\xe9"):
        answer = await client.get("/health", headers={b"X-Request-Id": odd.encode("latin-1")})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    async with httpx.AsyncClient(base_url=api) as stranger:
        assert (await stranger.get("/ready")).headers["X-Request-Id"]


async def test_a_defect_is_answered_without_its_text(
    engine: FakeEngine, llm: LlamaCpp, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(path: str, body: object) -> dict[str, Any]:
        raise RuntimeError("a text that may quote the request")

    monkeypatch.setattr(llm, "send", broken)
    for path, body in ((CHAT, BODY), (MESSAGE, {"message": "Hello"})):
        answer = await client.post(path, json=body, headers={"X-Request-Id": "mine-3"})
        assert answer.status_code == 500
        assert error_of(answer) == {
            "message": "The chat API failed; its log tells why under request id mine-3.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    assert "edge_llm_requests_in_flight 0.0" in (await client.get("/metrics")).text


async def test_the_openapi_document(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = document["paths"]
    assert {path for path, methods in paths.items() if "post" in methods} == set(POSTS)
    schemes = document["components"]["securitySchemes"]
    for path, methods in paths.items():
        for operation in methods.values():
            needed = [name for one in operation.get("security", []) for name in one]
            assert bool(needed) == (path != "/health")
            assert set(needed) <= set(schemes)
            assert "422" not in operation["responses"]
    assert schemes == {"key": {"type": "http", "scheme": "bearer"}}
