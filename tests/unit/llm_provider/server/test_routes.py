"""The chat API over real sockets: health, keys, models' names."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp, __version__
from llm_provider.errors import ConfigurationError
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server import access
from llm_provider.server.application import create_app
from llm_provider.server.rate_limit import Rate

from ..fake import AUTH, CONTEXT, KEY, MODEL, SLOTS, FakeEngine, error_of, serve_api, until

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES}


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
    async with httpx.AsyncClient(base_url=api, timeout=60) as stranger:
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
            "task": "chat",
            "context_size": CONTEXT,
            "parallel": 2,  # of the engine's 3
            "gpu_share": None,
            "engine": engine.url,
            "in_flight": 0,
            "leaving": 0,
            "queued": 0,
            "held": 0,
            "holding": False,
        },
    )


@pytest.mark.parametrize(("allowed", "parallel"), [(2, 2), (SLOTS, SLOTS), (SLOTS + 1, SLOTS)])
async def test_ready_reports_as_many_slots_as_requests_run(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, allowed: int, parallel: int
) -> None:
    async with (
        serve_api(llm, keys, PARALLEL=str(allowed)) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        assert (await client.get("/ready")).json()["parallel"] == parallel
        goes_on = engine.paused()
        tasks = [asyncio.create_task(client.post(CHAT, json=BODY)) for _ in range(SLOTS + 2)]
        await until(lambda: engine.running == parallel)
        await asyncio.sleep(0.05)
        assert engine.running == parallel
        assert f"edge_llm_slots {parallel}.0" in (await client.get("/metrics")).text
        goes_on.set()
        assert {(await task).status_code for task in tasks} == {200}


async def test_ready_tells_what_was_asked_for_where_the_engine_does_not_tell(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.on("/props", lambda x: x.answer({}))
    report = (await client.get("/ready")).json()
    assert (report["context_size"], report["parallel"]) == (4096, 2)


# Methods.


async def test_head_is_get_without_a_body(
    api: str, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="llm_provider")
    async with httpx.AsyncClient(base_url=api, timeout=60) as stranger:
        answer = await stranger.head("/health")
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await stranger.head("/ready")).status_code == 401
    own = (
        *("/health", "/ready", "/metrics", "/metrics/engine", "/v1/models", f"/v1/models/{MODEL}"),
        "/openapi.json",
    )
    for path in own:
        wanted, answer = await client.get(path), await client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Type"] == wanted.headers["Content-Type"]
        if path != "/metrics":  # which counts the very requests
            assert answer.headers["Content-Length"] == wanted.headers["Content-Length"]
        refused = await client.post(path, json={})
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert (await client.head("/v1/models/nothing")).status_code == 404
    assert (await client.head("/nothing")).status_code == 404
    assert (await client.head(CHAT)).status_code == 405
    lines = [record for record in caplog.records if record.getMessage() == "request"]
    told = [(vars(line)["method"], vars(line)["path"]) for line in lines]
    assert ("HEAD", "/v1/models/{name:path}") in told
    assert ("HEAD", "/health") not in told


async def test_options_tells_the_methods_and_needs_no_key(
    engine: FakeEngine, api: str, client: httpx.AsyncClient
) -> None:
    """A browser asks so before it may send the key; without CORS it learns that it may not."""
    async with httpx.AsyncClient(base_url=api, timeout=60) as stranger:
        for asking in (stranger, client):
            for path in ("/health", "/ready", "/v1/models", *POSTS):
                answer = await asking.options(path)
                allowed = "POST" if path in POSTS else "GET, HEAD"
                assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
                told = answer.json()["error"] if path == MESSAGE else error_of(answer)["message"]
                assert told == f"OPTIONS {path}: Method Not Allowed."
                assert not [name for name in answer.headers if name.startswith("access-control")]
            assert (await asking.options("/nothing")).status_code == 404
    assert engine.posts == []


# Keys.


NO_KEYS = (None, "", "Bearer", KEY, f"Basic {KEY}")
MISSING = "The request has no API key. Send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
UNKNOWN = "The API key is not valid."


async def test_a_key_is_needed(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # One address asks with more wrong keys than it may.
    monkeypatch.setattr(access, "WRONG_KEYS", Rate(per_minute=1, burst=1000))
    async with httpx.AsyncClient(base_url=api, timeout=60) as stranger:
        for header in (None, "", "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", "Bearer caf\xe9"):
            headers: dict[bytes, bytes]
            headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
            for path in (
                *("/ready", "/metrics", "/metrics/engine", "/v1/models", "/openapi.json"),
                *POSTS,
            ):
                method = "POST" if path in POSTS else "GET"
                answer = await stranger.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == 'Bearer, Basic realm="edge-llm"'
                message = MISSING if header in NO_KEYS else UNKNOWN
                if path == MESSAGE:  # its errors are Ollama's as long as no body says otherwise
                    assert answer.json() == {"error": message}
                    continue
                assert error_of(answer) == {
                    "message": message,
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_api_key",
                }
        for headers in ({b"x-api-key": b"wrong"}, {b"x-api-key": b""}, {b"x-api-key": b"\xe9"}):
            assert (await stranger.get("/ready", headers=headers)).status_code == 401
        assert (await stranger.get("/ready", auth=(KEY, "wrong"))).status_code == 401
        assert (await stranger.get("/nothing")).status_code == 404


@pytest.mark.parametrize(
    "ask",
    [
        {"headers": {"Authorization": f"Bearer {KEY}"}},
        {"headers": {"x-api-key": KEY}},
        {"headers": {"X-Api-Key": KEY, "Authorization": "Bearer of-a-proxy"}},
        {"auth": ("anybody", KEY)},
        {"auth": ("", KEY)},
    ],
)
async def test_a_key_may_come_in_three_ways(api: str, ask: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        assert (await client.get("/v1/models", **ask)).status_code == 200
        assert (await client.post(CHAT, json=BODY, **ask)).status_code == 200


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
    # Half-way through being written: what was in force stays so, and nothing else does.
    write_bytes(b"\xff\xfe\n")
    assert [await status("x"), await status("key-three")] == [401, 200]
    write("key-four-four")
    assert [await status("key-three"), await status("key-four-four")] == [401, 200]
    # Emptied, or gone: a person who removes keys means it.
    write("")
    assert [await status("x"), await status("key-four-four")] == [401, 401]
    write("key-five")
    assert await status("key-five") == 200
    rename(fresh)
    assert await status("key-five") == 401


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
        ({"CHAT_API_KEYS_FILE": "{}/empty"}, "No model is named; set LLM_MODEL"),
        ({"CHAT_API_KEYS_FILE": "{}/spaced"}, "Line 1 of the key file is invalid: a key is one"),
        ({"CHAT_API_KEYS_FILE": "{}/good"}, "No model is named; set LLM_MODEL"),
        *(
            ({"CHAT_API_KEYS_FILE": "{}/good", "LLM_MODEL": "m", **wrong}, sentence)
            for wrong, sentence in (
                ({"PARALLEL": "0"}, "PARALLEL is '0'; a whole number"),
                ({"LLM_HOLD_SECONDS": "-1"}, "LLM_HOLD_SECONDS is '-1'"),
                ({"LLM_DRAIN_SECONDS": "x"}, "LLM_DRAIN_SECONDS is 'x'"),
                ({"LLM_TASK": "talk"}, "LLM_TASK is 'talk'; known are: chat, embedding, rerank."),
                ({"CHAT_API_DOCS": "yes"}, "CHAT_API_DOCS is 'yes'; it must be 0 or 1."),
                ({"CHAT_API_COMMENT_SECONDS": "0"}, "CHAT_API_COMMENT_SECONDS is '0'; a number"),
                ({"CHAT_API_IMAGE_TOKENS": "0"}, "CHAT_API_IMAGE_TOKENS is '0'; a whole number"),
                ({"CHAT_API_MAX_HEADERS": "0"}, "CHAT_API_MAX_HEADERS is invalid: '0'."),
                (
                    {"CHAT_API_CORS_ORIGINS": "https://a.example/, *"},
                    "CHAT_API_CORS_ORIGINS holds 'https://a.example/', which is no origin;",
                ),
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
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        await client.get("/ready")  # the engine has told its context
        answer = (await client.get("/v1/models")).json()
        assert answer["object"] == "list"
        assert [entry["id"] for entry in answer["data"]] == [MODEL, "gpt-4o", "meta/llama"]
        for entry in answer["data"]:
            assert isinstance(entry["created"], int)
            context = {"context_length", "max_model_len", "meta"}
            assert set(entry) == {"id", "object", "created", "owned_by", *context}
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
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        for path, body in POSTS.items():
            if path == EMBEDDINGS:  # of an engine for them: see test_tasks
                continue
            before = len(engine.posts)
            answer = await client.post(path, json=body | {"model": model, "top_k": 3})
            assert answer.status_code == 200
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
