"""The engine's own API at its port: every request needs the engine's key, and passes as it is."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.errors import ConfigurationError
from llm_provider.server.connection_guard import Admission, ConnectionGuard
from llm_provider.server.engine_port import MOST_CONNECTIONS, EnginePort, port_limits
from llm_provider.server.limits import Limits
from llm_provider.server.uvicorn_server import server_config, start_server, stop_server

from ..fake import error_of, free_port, until
from .test_connection_guard import Fake

KEY = "engine-key-of-the-tests"
AUTH = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Asked:
    """A request as the engine reads it from the wire."""

    line: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> bytes:
        if "content-length" in self.headers:
            return await self.reader.readexactly(int(self.headers["content-length"]))
        parts = []
        while "transfer-encoding" in self.headers:
            size = int(await self.reader.readline(), 16)
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
            if not size:
                break
        return b"".join(parts)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Talk = Callable[[Asked], Awaitable[None]]


async def say_hello(asked: Asked) -> None:
    await asked.body()
    await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Own: yes\r\n\r\nhello")


@dataclass
class Engine:
    """An engine that talks as told, and what came."""

    talk: Talk = say_hello
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    ended: list[Asked] = field(default_factory=list)
    key: str | None = KEY

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        asked = Asked(head[0], headers, reader, writer)
        self.asked.append(asked)
        try:
            await self.talk(asked)
        finally:
            writer.close()
            self.ended.append(asked)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read_key(self) -> str | None:
        return self.key


@asynccontextmanager
async def port_before(engine: Engine) -> AsyncIterator[str]:
    """The engine's port, served; its URL."""
    application = EnginePort(lambda: engine.url, engine.read_key)
    guard = ConnectionGuard(port_limits(Limits(), host_only=True))
    listener = socket.create_server(("127.0.0.1", 0))
    server = await start_server(server_config(application, guard, lifespan="off"), listener)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await stop_server(server)
        await application.close()


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        port_before(engine) as url,
        httpx.AsyncClient(base_url=url, timeout=20, headers={"accept-encoding": "own"}) as made,
    ):
        yield made


@pytest.mark.parametrize(
    ("address", "host_only", "admitted"),
    [
        ("127.0.0.1", True, True),
        ("::1", True, True),
        ("198.51.100.2", True, False),
        # As Docker's bridge shows the host to a container that holds the port.
        ("172.18.0.1", False, True),
    ],
)
async def test_who_may_connect(address: str, host_only: bool, admitted: bool) -> None:
    guard = ConnectionGuard(port_limits(Limits(), host_only=host_only))
    expected = Admission.ADMITTED if admitted else Admission.NOT_ALLOWED
    assert guard.admit(Fake(), address) is expected


@pytest.mark.parametrize("path", ["/health", "/api/tags", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "The request has no key."),
        ({"Authorization": "Bearer wrong"}, "The key is not valid."),
        ({"Authorization": KEY}, "The request has no key."),
        ({"x-api-key": f"{KEY} "[:-2]}, "The key is not valid."),
    ],
)
async def test_without_the_key_nothing_reaches_the_engine(
    client: httpx.AsyncClient, engine: Engine, headers: dict[str, str], reason: str, path: str
) -> None:
    answer = await client.post(path, headers=headers, content=b"prompt")
    assert answer.status_code == 401
    assert error_of(answer)["message"] == (
        f"{reason} Send the engine's key as 'Authorization: Bearer KEY' or 'x-api-key: KEY'; root"
        " reads it in secrets/engine_key of the project's folder on the host (/opt/edge-llm)."
    )
    assert answer.headers["www-authenticate"] == "Bearer"
    assert engine.asked == []


@pytest.mark.parametrize("headers", [AUTH, {"x-api-key": KEY}, {"authorization": f"bearer {KEY}"}])
async def test_a_request_passes_as_it_is(
    client: httpx.AsyncClient, engine: Engine, headers: dict[str, str]
) -> None:
    answer = await client.get(
        "/api/a%2Fb/c?x=1&y=%20", headers={**headers, "X-Mine": "kept", "TE": "trailers"}
    )
    assert (answer.status_code, answer.text, answer.headers["x-own"]) == (200, "hello", "yes")
    (asked,) = engine.asked
    assert asked.line == "GET /api/a%2Fb/c?x=1&y=%20 HTTP/1.1"
    assert asked.headers["authorization"] == f"bearer {KEY}"
    assert asked.headers["host"] == f"127.0.0.1:{engine.port}"
    assert asked.headers["x-mine"] == "kept"
    assert asked.headers["accept-encoding"] == "own"
    assert not {"x-api-key", "te", "content-length", "transfer-encoding"} & set(asked.headers)


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_pass_in_both_directions(
    client: httpx.AsyncClient, engine: Engine, chunked: bool
) -> None:
    large = bytes(range(256)) * 20_000

    async def echo(asked: Asked) -> None:
        body = await asked.body()
        await asked.send(b"HTTP/1.1 201 Made\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def parts() -> AsyncIterator[bytes]:
        yield large[:100]
        yield large[100:]

    engine.talk = echo
    for _ in range(2):  # over one connection
        answer = await client.put("/x", content=parts() if chunked else large, headers=AUTH)
        assert (answer.status_code, answer.content) == (201, large)
    assert ("transfer-encoding" in engine.asked[0].headers) is chunked


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_errors_of_the_engine_are_its_own(
    client: httpx.AsyncClient, engine: Engine, status: int
) -> None:
    async def fail(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 %d Own\r\nContent-Length: 4\r\n\r\nitis" % status)

    engine.talk = fail
    answer = await client.get("/x", headers=AUTH)
    assert (answer.status_code, answer.text) == (status, "itis")


@pytest.mark.parametrize("target", [b"*", b"http://192.0.2.1/health", b"/" + b"x" * 65537])
async def test_a_target_that_is_no_path(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, target: bytes
) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    application = EnginePort(lambda: engine.url, engine.read_key)
    scope = {
        **{"type": "http", "method": "OPTIONS", "path": "", "raw_path": target},
        **{"query_string": b"", "headers": [(b"authorization", f"Bearer {KEY}".encode())]},
    }
    await application(scope, receive, send)
    assert sent[0]["status"] == 400
    error = json.loads(sent[1]["body"])["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_target")
    assert error["message"].startswith("The request's target is invalid: ")
    assert error["message"].endswith(". Send a path that begins with '/'.")
    assert engine.asked == []
    await application.close()


async def test_a_stream_passes_piece_by_piece(client: httpx.AsyncClient, engine: Engine) -> None:
    goes_on = asyncio.Event()

    async def stream(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await goes_on.wait()
        await asked.send(b"3\r\ntwo\r\n0\r\n\r\n")

    engine.talk = stream
    async with client.stream("GET", "/x", headers=AUTH) as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"one"  # before there is more
        goes_on.set()
        assert [piece async for piece in pieces] == [b"two"]


async def test_head_requests_have_no_body(client: httpx.AsyncClient, engine: Engine) -> None:
    async def head(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    engine.talk = head
    answer = await client.head("/x", headers=AUTH)
    assert (answer.status_code, answer.headers["content-length"]) == (200, "5")


async def test_an_engine_that_cannot_be_reached(client: httpx.AsyncClient, engine: Engine) -> None:
    engine.port = free_port()
    answer = await client.get("/x", headers=AUTH)
    assert answer.status_code == 502
    assert error_of(answer)["message"] == "The engine does not answer: the connection was refused."


async def test_an_answer_that_breaks_off_is_no_whole_one(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    async def begin(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    engine.talk = begin
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/x", headers=AUTH)


async def test_an_engine_that_hangs_up(client: httpx.AsyncClient, engine: Engine) -> None:
    async def leave(asked: Asked) -> None:
        pass

    engine.talk = leave
    answer = await client.get("/x", headers=AUTH)
    assert answer.status_code == 502
    assert len(engine.asked) == 1  # nothing is sent twice


async def test_the_engine_stops_when_the_client_leaves(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    async def endless(asked: Asked) -> None:
        await asked.body()
        assert await asked.reader.read() == b""  # the end of the connection

    engine.talk = endless
    request = asyncio.create_task(client.post("/x", content=b"{}", headers=AUTH))
    await until(lambda: len(engine.asked) == 1, "the request")
    request.cancel()
    await until(lambda: len(engine.ended) == 1, "the end of the engine's connection")


async def test_without_a_key_of_the_engine_nothing_passes(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    engine.key = None
    answer = await client.get("/x", headers=AUTH)
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "no_engine_key"
    engine.key = "another"
    assert (await client.get("/x", headers=AUTH)).status_code == 401
    assert engine.asked == []


async def test_a_key_file_that_cannot_be_read(engine: Engine, caplog: Any, tmp_path: Path) -> None:
    def fail() -> str | None:
        raise ConfigurationError(f"LLM_API_KEY_FILE cannot be read: {tmp_path}.")

    engine.read_key = fail  # type: ignore[method-assign]
    async with port_before(engine) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/x", headers=AUTH)).status_code == 503
    assert f"LLM_API_KEY_FILE cannot be read: {tmp_path}." in caplog.text


async def test_a_stop_cuts_what_is_not_answered(engine: Engine, caplog: Any) -> None:
    async def endless(asked: Asked) -> None:
        await asked.reader.read()

    engine.talk = endless
    async with httpx.AsyncClient(timeout=20) as client:
        async with port_before(engine) as url:
            request = asyncio.create_task(client.get(f"{url}/x", headers=AUTH))
            await until(lambda: len(engine.asked) == 1, "the request")
        answer = await request
    assert (answer.status_code, error_of(answer)["code"]) == (503, "stopped")
    assert not [record for record in caplog.records if record.exc_info]


async def test_connections_are_bounded(client: httpx.AsyncClient, engine: Engine) -> None:
    async def wait(asked: Asked) -> None:
        await asked.reader.read()

    engine.talk = wait
    async with httpx.AsyncClient(
        base_url=client.base_url,
        timeout=20,
        limits=httpx.Limits(max_connections=None),
    ) as many:
        tasks = [asyncio.create_task(many.get("/x", headers=AUTH)) for _ in range(MOST_CONNECTIONS)]
        await until(lambda: len(engine.asked) == MOST_CONNECTIONS, "all requests")
        answer = await many.get("/x", headers=AUTH)
        assert answer.status_code == 503
        assert error_of(answer)["code"] == "too_many_connections"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
