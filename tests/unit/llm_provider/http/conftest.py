from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from llm_provider.http.client import HTTPClient
from llm_provider.http.settings import Timeouts
from llm_provider.http.transports import aiohttp_transport, httpx_transport

from .server import Server

TRANSPORTS: dict[str, Callable[..., httpx.AsyncBaseTransport]] = {
    "httpx": httpx_transport,
    "aiohttp": aiohttp_transport,
}
PATIENT = Timeouts(connect=5, first_byte=20, idle=20)

MakeClient = Callable[..., HTTPClient]


@pytest.fixture(params=list(TRANSPORTS))
def kind(request: pytest.FixtureRequest) -> str:
    """Every test that uses a client runs with each transport."""
    return str(request.param)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().serving() as one:
        yield one


@pytest.fixture
async def make(kind: str) -> AsyncIterator[MakeClient]:
    """Make clients, which are closed in the end."""
    made: list[HTTPClient] = []

    def make_client(url: str, headers: Any = None, timeouts: Any = PATIENT, **tls: Any) -> Any:
        client = HTTPClient(url, headers, timeouts, transport=TRANSPORTS[kind](**tls))
        made.append(client)
        return client

    yield make_client
    for client in made:
        await client.close()


@pytest.fixture
def client(make: MakeClient, server: Server) -> HTTPClient:
    return make(server.url)
