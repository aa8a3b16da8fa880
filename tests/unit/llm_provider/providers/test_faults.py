"""Every way in which a connection can fail, through the module and through the chat API."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llm_provider import (
    EngineRefusedError,
    EngineTimeoutError,
    LlamaCpp,
    LLMError,
    MalformedAnswer,
    StreamInterruptedError,
)
from llm_provider.providers.routes import CHAT

from ..fake import (
    ANSWER,
    AUTH,
    DONE,
    MODEL,
    Exchange,
    FakeEngine,
    error_event,
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


async def hush(_: Exchange) -> None:
    await asyncio.sleep(60)


async def reset(exchange: Exchange) -> None:
    """Close the connection without a goodbye."""
    await asyncio.sleep(0.02)  # what was sent before is read first
    exchange.writer.transport.abort()


async def drip(exchange: Exchange) -> None:
    """A header a byte at a time: never silent for long, and never done."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 10_000:
        await exchange.send(bytes([byte]))
        await asyncio.sleep(0.02)


HTML = b"<html><body>502 Bad Gateway</body></html>"


GZIP = "Content-Encoding: gzip"


BROKE = "broke the connection after 0 bytes of its answer: "


ANY = [
    Fault("closed before the headers", sends(), StreamInterruptedError, BROKE),
    Fault("reset before the headers", sends(then=reset), StreamInterruptedError, BROKE),
    Fault("closed in the status line", sends(b"HTTP/1.1 2"), StreamInterruptedError, BROKE),
    Fault(
        "closed in the headers",
        sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
        StreamInterruptedError,
        BROKE,
    ),
    Fault("no HTTP", sends(b"SSH-2.0-OpenSSH\r\n\r\n"), MalformedAnswer, "an unreadable answer: "),
    Fault(
        "a head without end",
        sends(b"HTTP/1.1 200 OK\r\n", b"X-Filler: 0123456789\r\n" * 20_000, then=hush),
        MalformedAnswer,
        "an unreadable answer: ",
    ),
    Fault("silence", hush, EngineTimeoutError, "was silent for longer than allowed, after 0 bytes"),
    Fault(
        "half a head, then silence",
        sends(b"HTTP/1.1 200", then=hush),
        EngineTimeoutError,
        "was silent",
    ),
    Fault(
        "slow headers",
        drip,
        EngineTimeoutError,
        "was silent for longer than allowed, after 0 bytes",
    ),
    Fault(
        "HTML",
        sends(headed(HTML, "Content-Type: text/html")),
        MalformedAnswer,
        "answered 200 with what is not a JSON object: '<html><body>502",
    ),
    Fault("nothing", sends(headed(b"")), MalformedAnswer, "what is not a JSON object: ''"),
    Fault(
        "200 with an error",
        sends(headed(b'{"error": {"message": "out of memory"}}')),
        EngineRefusedError,
        "refused with status 200: out of memory",
    ),
    Fault(
        "a redirect",
        sends(headed(b"", "Location: http://127.0.0.1:1/", status="307 Temporary Redirect")),
        EngineRefusedError,
        "refused with status 307: Temporary Redirect",
    ),
    Fault(
        "a status of its own",
        sends(headed(b"", status="599 Odd")),
        EngineRefusedError,
        "refused with status 599: status 599",
    ),
    Fault("an upgrade", sends(headed(b"", "Upgrade: h2c", status="101 Up")), MalformedAnswer, ""),
]


WHOLE = [
    *ANY,
    Fault(
        "closed in the body",
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + JSON[:100]),
        StreamInterruptedError,
        "broke the connection",
    ),
    Fault(
        "reset in the body",
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + JSON[:100], then=reset),
        StreamInterruptedError,
        "broke the connection",
    ),
    Fault(
        "half a chunk",
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(JSON)[:-20]),
        StreamInterruptedError,
        "broke the connection",
    ),
    Fault(
        "silence in the body",
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + JSON[:100], then=hush),
        EngineTimeoutError,
        "was silent for longer than allowed",
    ),
    Fault("invalid UTF-8", sends(headed(b'{"a": "\xff\xfe"}')), MalformedAnswer, "not a JSON"),
    Fault("no JSON", sends(headed(JSON[:-1])), MalformedAnswer, "not a JSON object"),
    Fault("an array", sends(headed(b"[" + JSON + b"]")), MalformedAnswer, "not a JSON object"),
    Fault("deep JSON", sends(headed(b'{"a":' * 99_999)), MalformedAnswer, "not a JSON object"),
    Fault("gzip", sends(headed(gzip.compress(JSON), GZIP)), MalformedAnswer, "not a JSON object"),
    Fault(
        "events",
        sends(headed(stream_of(), EVENTS)),
        MalformedAnswer,
        "answered 200 with what is not a JSON object: 'data: ",
    ),
]


STREAMED = [
    *ANY,
    Fault(
        "a whole answer",
        sends(headed(JSON, "Content-Type: application/json")),
        MalformedAnswer,
        "answered a streamed request with application/json, not text/event-stream",
    ),
    Fault(
        "no content type",
        sends(headed(JSON)),
        MalformedAnswer,
        "answered a streamed request with no content type, not text/event-stream",
    ),
    Fault("closed after the headers", sends(STREAM_HEAD), StreamInterruptedError, BROKE),
    Fault(
        "silence after the headers",
        sends(STREAM_HEAD, then=hush),
        EngineTimeoutError,
        "after 0 bytes",
    ),
    Fault(
        "nothing in the stream",
        sends(STREAM_HEAD + chunk(b"")),
        StreamInterruptedError,
        "ended its stream after 0 bytes, without its end",
    ),
    Fault(
        "truncated",
        sends(STREAM_HEAD + chunk(event("Hel")) + chunk(b"")),
        StreamInterruptedError,
        "bytes, without its end",
        begun=True,
    ),
    Fault(
        "truncated in an event",
        sends(STREAM_HEAD + chunk(event("Hel") + event("lo")[:-12]) + chunk(b"")),
        StreamInterruptedError,
        "bytes, without its end",
        begun=True,
    ),
    Fault(
        "half a chunk",
        sends(STREAM_HEAD + chunk(event("Hel")) + chunk(event("lo"))[:-20]),
        StreamInterruptedError,
        "broke the connection after",
        begun=True,
    ),
    Fault(
        "reset",
        sends(STREAM_HEAD + chunk(event("Hel")), then=reset),
        StreamInterruptedError,
        "broke the connection after",
        begun=True,
    ),
    Fault(
        "silence in the stream",
        sends(STREAM_HEAD + chunk(event("Hel")), then=hush),
        EngineTimeoutError,
        "was silent for longer than allowed, after",
        begun=True,
    ),
    # What came in one piece with the fault is dropped with it.
    Fault(
        "no chunk",
        sends(STREAM_HEAD + chunk(event("Hel")) + b"nonsense\r\n", then=hush),
        MalformedAnswer,
        "an unreadable answer: ",
    ),
    Fault(
        "closed without a length",
        sends(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n\r\n".encode() + event("Hel")),
        StreamInterruptedError,
        "bytes, without its end",
        begun=True,
    ),
    Fault(
        "an error event",
        sends(STREAM_HEAD + chunk(event("Hel") + error_event("no more room")) + chunk(b"")),
        StreamInterruptedError,
        "",
        begun=True,
    ),
    Fault(
        "gzip",
        sends(headed(gzip.compress(stream_of()), EVENTS, GZIP)),
        MalformedAnswer,
        "packed its stream with gzip, which was not asked for",
    ),
]


EACH = {
    "argnames": ("fault", "stream"),
    "argvalues": [(one, False) for one in WHOLE] + [(one, True) for one in STREAMED],
    "ids": [f"whole-{one.name}" for one in WHOLE] + [f"streamed-{one.name}" for one in STREAMED],
}


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


def requests(engine: FakeEngine) -> int:
    return engine.paths().count(CHAT)


@pytest.mark.parametrize(**EACH)  # type: ignore[arg-type]
async def test_the_module(engine: FakeEngine, faulty: LlamaCpp, fault: Fault, stream: bool) -> None:
    engine.on(CHAT, fault.handler)
    with pytest.raises(LLMError) as caught:
        await text_of(faulty, stream)
    assert type(caught.value) is fault.kind
    assert fault.words in str(caught.value)
    assert str(caught.value).startswith((f"llamacpp at {engine.url} ", "The stream "))
    assert requests(engine) == engine.connections == 1
    if fault.begun and isinstance(caught.value, StreamInterruptedError | EngineTimeoutError):
        assert caught.value.text == "Hel"
    await until(lambda: engine.running == 0, "the end of the engine's work")
    engine.on(CHAT, engine.chat)
    assert (await text_of(faulty, stream)).strip() == ANSWER


@pytest.mark.parametrize(**EACH)  # type: ignore[arg-type]
async def test_the_chat_api(
    engine: FakeEngine, one_slot: httpx.AsyncClient, fault: Fault, stream: bool
) -> None:
    engine.on(CHAT, fault.handler)
    answer = await one_slot.post(CHAT, json=BODY | {"stream": stream})
    if fault.begun:
        assert answer.status_code == 200
        before, _, last = answer.text.rpartition("data: ")
        assert before.startswith(event("Hel").decode())
        assert DONE not in answer.content
        problem = json.loads(last)["error"]
    else:
        assert answer.status_code == fault.status
        problem = answer.json()["error"]
    assert problem["code"] == fault.code
    assert fault.words in problem["message"]
    assert problem["type"] == "server_error"
    assert requests(engine) == 1
    await until(lambda: engine.running == 0, "the end of the engine's work")
    # The one slot is free.
    engine.on(CHAT, engine.chat)
    answer = await one_slot.post(CHAT, json=BODY | {"stream": stream})
    assert answer.status_code == 200
    metrics = (await one_slot.get("/metrics")).text
    assert "edge_llm_requests_in_flight 0.0" in metrics
    broke_off = fault.begun and fault.kind is not MalformedAnswer
    outcome = "interrupted" if broke_off else fault.code
    counted = f'edge_llm_requests_total{{key="key-1",outcome="{outcome}",route="{CHAT}"}} 1.0'
    assert counted in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_closed_as_soon_as_it_is_open(
    engine: FakeEngine, faulty: LlamaCpp, one_slot: httpx.AsyncClient, stream: bool
) -> None:
    await until(lambda: "/props" in engine.paths())  # the chat API's own questions
    engine.hangs_up = True
    before = engine.connections
    with pytest.raises(StreamInterruptedError, match="broke the connection after 0 bytes"):
        await text_of(faulty, stream)
    answer = await one_slot.post(CHAT, json=BODY | {"stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_error")
    assert engine.connections == before + 2
    engine.hangs_up = False
    assert (await one_slot.post(CHAT, json=BODY | {"stream": stream})).status_code == 200


@pytest.mark.parametrize(
    "broken",
    [
        b"data: \xff\xfe\n\n",
        b"data: {\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": 1}\n\n',
        b'data: {"choices": [{"delta": {"content": 1}}]}\n\n',
        b"data: " + b"[" * 99_999 + b"\n\n",
    ],
)
async def test_events_that_are_none(
    engine: FakeEngine, faulty: LlamaCpp, one_slot: httpx.AsyncClient, broken: bytes
) -> None:
    """Whoever reads them meets them; the chat API passes them on, save where it reads itself."""
    raw = event("Hel") + broken + event("lo") + DONE
    engine.on(CHAT, lambda x: x.stream(raw))
    with pytest.raises(MalformedAnswer):
        await text_of(faulty, True)
    answer = await one_slot.post(CHAT, json=BODY | {"stream": True})
    assert (answer.status_code, answer.content) == (200, raw)
    answer = await one_slot.post("/api/chat", json={"message": "Hello", "stream": True})
    assert answer.status_code == 200
    *before, last = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    assert before in ([], [{"delta": "Hel"}])  # it may have come in one piece with what is broken
    assert last["error"]["code"] == "engine_error"
    await until(lambda: engine.running == 0, "the end of the engine's work")


async def test_an_error_event_before_a_proper_end(
    engine: FakeEngine, faulty: LlamaCpp, one_slot: httpx.AsyncClient
) -> None:
    """As vLLM ends a stream that it cannot go on with."""
    raw = event("Hel") + error_event("no more room") + DONE
    engine.on(CHAT, lambda x: x.stream(raw))
    with pytest.raises(StreamInterruptedError, match="no more room") as caught:
        await text_of(faulty, True)
    assert caught.value.text == "Hel"
    answer = await one_slot.post(CHAT, json=BODY | {"stream": True})
    assert (answer.status_code, answer.content) == (200, raw)
    assert 'outcome="interrupted"' in (await one_slot.get("/metrics")).text
    answer = await one_slot.post("/api/chat", json={"message": "Hello", "stream": True})
    assert "no more room" in json.loads(answer.text.rpartition("data: ")[2])["error"]["message"]
