"""Answers that are odd, and answers all the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llm_provider import EngineTimeoutError, LlamaCpp, MalformedAnswer
from llm_provider.providers.routes import CHAT

from ..fake import (
    ANSWER,
    AUTH,
    MODEL,
    Exchange,
    FakeEngine,
    completion,
    event,
    serve_api,
    stream_of,
    until,
)
from .faults import (
    BODY,
    EVENTS,
    JSON,
    LOST,
    PATIENCE,
    STREAM_HEAD,
    Fault,
    chunk,
    headed,
    sends,
    text_of,
)


@pytest.fixture
async def faulty(engine: FakeEngine, request: pytest.FixtureRequest) -> AsyncIterator[LlamaCpp]:
    parameters = getattr(request.node, "callspec", None)
    fault = parameters.params.get("fault") if parameters else None
    silent = isinstance(fault, Fault) and fault.kind is EngineTimeoutError
    timeout = PATIENCE if silent else LOST / 2
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=timeout) as llm:
        yield llm


@pytest.fixture
async def one_slot(faulty: LlamaCpp, keys: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve_api(faulty, keys, PARALLEL="1") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=LOST) as client,
    ):
        yield client


# Odd, and yet an answer.

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


SECOND = headed(b'{"error": "not mine"}', "Content-Type: application/json")


@pytest.mark.parametrize(
    "raw",
    [
        INTERIM + headed(JSON),
        b"HTTP/1.1 200 OK\r\n\r\n" + JSON,
        b"HTTP/1.0 200 OK\r\n\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\ntransfer-ENCODING: Chunked\r\n\r\n"
        + b"".join(chunk(JSON[at : at + 1]) for at in range(len(JSON)))
        + b"0\r\nX-Trailer: 1\r\n\r\n",
        headed(JSON, "X-Long: " + "x" * 20_000),
        headed(JSON) + SECOND,
    ],
    ids=["interim", "no length", "HTTP/1.0", "chunks", "long header", "two"],
)
async def test_odd_answers(engine: FakeEngine, faulty: LlamaCpp, raw: bytes) -> None:
    engine.on(CHAT, sends(raw))
    assert (await faulty.send(CHAT, BODY)).raw == JSON
    # In any pieces.
    engine.on(CHAT, sends(*(raw[at : at + 50] for at in range(0, len(raw), 50))))
    assert (await faulty.send(CHAT, BODY)).raw == JSON


async def test_odd_streams(engine: FakeEngine, faulty: LlamaCpp) -> None:
    whole = stream_of()
    for raw in (
        INTERIM + headed(whole, "content-type: text/event-stream;charset=UTF-8"),
        f"HTTP/1.0 200 OK\r\n{EVENTS}\r\n\r\n".encode() + whole,
        STREAM_HEAD + b"".join(chunk(whole[at : at + 1]) for at in range(len(whole))) + chunk(b""),
        STREAM_HEAD + chunk(whole) + chunk(b"") + SECOND,
        # Closed without the last chunk, behind the answer's own end.
        STREAM_HEAD + chunk(whole),
    ):
        engine.on(CHAT, sends(raw))
        assert (await text_of(faulty, True)).strip() == ANSWER


async def test_ten_megabytes(
    engine: FakeEngine, faulty: LlamaCpp, one_slot: httpx.AsyncClient
) -> None:
    text = "x" * 10_000_000
    raw = json.dumps(completion(text)).encode()
    engine.on(CHAT, lambda x: x.answer(raw))
    assert (await faulty.send(CHAT, BODY)).raw == raw
    assert (await one_slot.post(CHAT, json=BODY)).content == raw
    whole = event(text) + stream_of()
    engine.on(CHAT, lambda x: x.stream(whole))
    assert await text_of(faulty, True) == text + ANSWER + " "
    assert (await one_slot.post(CHAT, json=BODY | {"stream": True})).content == whole


async def test_an_answer_without_end(engine: FakeEngine, faulty: LlamaCpp) -> None:
    """Not even memory is at the mercy of an engine."""

    async def flood(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await exchange.send(chunk(b" " * 1_000_000))

    engine.on(CHAT, flood)
    with pytest.raises(MalformedAnswer, match="more than"):
        await text_of(faulty, False)
    await until(lambda: engine.running == 0, "the end of the engine's work")
