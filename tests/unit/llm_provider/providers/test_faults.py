"""An engine that is faulty on the wire, seen by the module and through the chat API.

Whatever it does: an error of the right kind with a sentence, at once or when the time allowed is
over; nothing sent twice, since it may have run; the slot free, and the next request answered.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    Handler,
    completion,
    error_event,
    event,
    serve_api,
    stream_of,
    until,
)

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
PATIENCE = 0.6
"""Seconds of silence allowed where there is silence: enough for what comes, on a busy machine."""
LOST = 20.0
"""Seconds after which a request counts as lost in these tests: far more than any may take."""
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Fault:
    """What the engine does, and what comes of it; `begun`: after a part of the answer."""

    name: str
    handler: Handler
    kind: type[LLMError]
    words: str
    begun: bool = False

    @property
    def status(self) -> int:
        return 504 if self.kind is EngineTimeoutError else 502

    @property
    def code(self) -> str:
        return "engine_timeout" if self.kind is EngineTimeoutError else "engine_error"


def sends(*parts: bytes, then: Callable[[Exchange], Awaitable[None]] | None = None) -> Handler:
    """Send these bytes, whatever they are; then close the connection, or do `then`."""

    async def handler(exchange: Exchange) -> None:
        for part in parts:
            await exchange.send(part)
        if then is not None:
            await then(exchange)

    return handler


def headed(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


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


JSON = json.dumps(completion()).encode()
HTML = b"<html><body>502 Bad Gateway</body></html>"
EVENTS = "Content-Type: text/event-stream"
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
    Fault(
        "no chunk",
        sends(STREAM_HEAD + chunk(event("Hel")) + b"nonsense\r\n", then=hush),
        MalformedAnswer,
        "an unreadable answer: ",
        begun=True,
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


async def text_of(llm: LlamaCpp, stream: bool) -> str:
    async with asyncio.timeout(LOST):
        if not stream:
            return await llm.generate("Hello")
        return "".join([piece async for piece in llm.generate_stream("Hello")])


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
    assert f'edge_llm_requests_total{{outcome="{outcome}",route="{CHAT}"}} 1.0' in metrics


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
        headed(JSON, "Connection: close") + SECOND,
    ],
    ids=["interim", "no length", "HTTP/1.0", "chunks", "long header", "two", "two, closed"],
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
