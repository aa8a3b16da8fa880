"""Every line of the log is JSON, and none holds a prompt, an answer or a key."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.application import create_app
from llm_provider.server.logs import JsonFormatter

from ..fake import (
    AUTH,
    DONE,
    KEY,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    error_event,
    event,
    serve_api,
    until,
)

CANARY = "canary-8d1f"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": CANARY}]}
MESSAGE = "/api/chat"
POSTS = {
    CHAT: BODY,
    COMPLETIONS: {"prompt": CANARY},
    EMBEDDINGS: {"input": CANARY},
    RESPONSES: {"input": CANARY},
    MESSAGE: {"message": CANARY, "system": CANARY},
}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What would be written: as the chat API's process does it, and that is all loggers."""
    return [JsonFormatter().format(record) for record in caplog.records]


def requests(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in lines(caplog)]
    return [entry for entry in entries if entry["message"] == "request"]


async def test_a_line_for_each_request(
    engine: FakeEngine, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="llm_provider")
    await client.post(CHAT, json=BODY)
    await client.post(CHAT, json=BODY | {"stream": True}, headers={"X-Request-Id": "mine-1"})
    await client.get("/v1/models")
    await client.get("/health")  # every few seconds: told only where it fails
    await client.get("/v1/models", headers={"Authorization": "Bearer wrong"})
    await client.get(f"/{CANARY}")
    engine.on(CHAT, lambda x: x.answer({"error": {"message": CANARY}}, 400))
    await client.post(CHAT, json=BODY)
    engine.on(CHAT, lambda x: x.stream(event("Hel")))
    await client.post(CHAT, json=BODY | {"stream": True})
    whole, stream, models, stranger, nowhere, refused, cut = requests(caplog)
    common = {"method", "path", "status", "seconds", "client", "outcome", "request_id"}
    standard = {"time", "level", "logger", "message"}
    assert set(whole) == standard | common | {"tokens_in", "tokens_out", "key"}
    assert set(stream) == set(whole) | {"first_bytes_seconds"}
    assert stream["request_id"] == "mine-1"
    assert (stream["path"], stream["status"], stream["outcome"]) == (CHAT, 200, "complete")
    assert 0 < stream["first_bytes_seconds"] <= stream["seconds"]
    assert (stream["tokens_in"], stream["tokens_out"]) == (7, 6)
    assert stream["client"] == "127.0.0.1"
    assert (models["method"], models["path"]) == ("GET", "/v1/models")
    assert (models["key"], "key" in stranger) == ("key-1", False)
    assert (stranger["path"], stranger["status"]) == ("/v1/models", 401)
    assert (nowhere["path"], nowhere["status"]) == (None, 404)
    assert (refused["status"], refused["outcome"], refused["error"]) == (
        400,
        "rejected",
        "EngineRefusedError",
    )
    assert (cut["status"], cut["outcome"]) == (200, "interrupted")


async def echo(exchange: Exchange) -> None:
    """Answer with what was asked."""
    content = json.dumps(exchange.body)
    if exchange.body["stream"]:
        await exchange.stream(event(content), DONE)
    else:
        await exchange.answer(completion(content))


async def broken(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(event(CANARY) + error_event(CANARY))


ENGINES = {
    "echoes": echo,
    "refuses": lambda x: x.answer({"error": {"message": CANARY, "code": CANARY}}, 400),
    "fails": lambda x: x.answer({"error": {"message": CANARY}}, 500),
    "has none": lambda x: x.answer({"error": {"message": CANARY}}, 501),
    "is no engine": lambda x: x.answer(f"<html>{CANARY}".encode()),
    "breaks off": broken,
    "is silent": lambda x: asyncio.sleep(60),
}


async def test_no_line_holds_a_prompt_an_answer_or_a_key(
    engine: FakeEngine, keys: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """At any level, of any logger, wherever a client or an engine puts one."""
    for noisy in ("httpx", "httpcore", "asyncio"):  # the test's own client and loop
        caplog.set_level(logging.CRITICAL, logger=noisy)
    caplog.set_level(logging.DEBUG)
    secret = f"{CANARY}-of-the-engine"
    async with (
        LlamaCpp(model=MODEL, base_url=engine.url, api_key=secret, timeout=0.3) as llm,
        serve_api(llm, keys) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=5) as client,
    ):
        count = 0
        for name, handler in ENGINES.items():
            for path, body in POSTS.items():
                engine.on(path, handler)
                for stream in (False, True):
                    answer = await client.post(path, json=body | {"stream": stream})
                    count += 1
                    assert answer.status_code in (200, 400, 501, 502, 504), name
        engine.on(CHAT, engine.chat)
        odd: list[tuple[str, dict[str, Any]]] = [
            ("POST", {"url": f"/{CANARY}", "json": BODY}),
            ("POST", {"url": f"{CHAT}?q={CANARY}", "json": BODY}),
            ("GET", {"url": f"/v1/models/{CANARY}"}),
            (CANARY.upper(), {"url": CHAT}),
            ("POST", {"url": CHAT, "json": BODY | {"model": CANARY}}),
            ("POST", {"url": CHAT, "json": {CANARY: 1}}),
            ("POST", {"url": CHAT, "content": f'{{"{CANARY}'}),
            ("POST", {"url": CHAT, "json": BODY | {"stream": CANARY}}),
            ("POST", {"url": CHAT, "json": BODY, "headers": {"User-Agent": CANARY}}),
            ("POST", {"url": CHAT, "json": BODY, "headers": {"X-Request-Id": f"{CANARY} 1"}}),
            ("POST", {"url": CHAT, "json": BODY, "headers": {"Authorization": f"Bearer {CANARY}"}}),
            ("GET", {"url": "/ready", "headers": {"Authorization": CANARY}}),
            ("GET", {"url": "/ready", "headers": {"Authorization": "", "x-api-key": CANARY}}),
            ("GET", {"url": "/ready", "auth": (CANARY, CANARY)}),
        ]
        for method, how in odd:
            await client.request(method, **how)
        with pytest.raises(httpx.ReadTimeout):
            engine.on(CHAT, lambda x: asyncio.sleep(60))
            await client.post(CHAT, json=BODY, timeout=httpx.Timeout(20, read=0.05))
        await until(lambda: requests(caplog)[-1]["outcome"] == "client_left")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"{CANARY}\r\n\r\n".encode())
        await reader.read()
        writer.close()
    assert len(requests(caplog)) > count
    assert not [line for line in lines(caplog) if CANARY in line]
    assert not [line for line in lines(caplog) if KEY in line]
    assert {request.headers["authorization"] for request in engine.requests} == {f"Bearer {secret}"}


async def test_a_defect_is_logged_by_its_places(
    engine: FakeEngine,
    llm: LlamaCpp,
    client: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(path: str, body: object, **options: object) -> dict[str, Any]:
        raise RuntimeError(CANARY)

    caplog.set_level(logging.INFO, logger="llm_provider")
    monkeypatch.setattr(llm, "send", broken)
    await client.post(CHAT, json=BODY, headers={"X-Request-Id": "mine-3"})
    (record,) = [record for record in caplog.records if record.message == "defect"]
    line = JsonFormatter().format(record)
    assert CANARY not in line
    entry = json.loads(line)
    assert (entry["exception"], entry["request_id"]) == ("RuntimeError", "mine-3")
    assert any("broken" in place for place in entry["trace"])
    assert requests(caplog)[-1]["outcome"] == "defect"


async def test_changes_of_the_engine_are_told(
    engine: FakeEngine, llm: LlamaCpp, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="llm_provider")
    engine.loading = True
    app = create_app({"CHAT_API_KEYS_FILE": str(keys)}, provider=llm)
    async with app.router.lifespan_context(app):
        await until(lambda: "engine not ready" in caplog.text)
        engine.loading = False
        await until(lambda: app.state.queue.open)
    entries = [json.loads(line) for line in lines(caplog)]
    assert [entry["message"].split(":")[0] for entry in entries] == [
        "keys read",
        "engine not ready",
        "engine ready",
    ]
    assert (entries[2]["provider"], entries[2]["model"]) == ("llamacpp", MODEL)
