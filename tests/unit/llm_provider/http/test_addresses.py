"""Name resolution and attempts to connect, with each transport."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from llm_provider.http.errors import ConnectError
from llm_provider.http.settings import Timeouts

from .conftest import MakeClient
from .server import BODY, Server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_refused_connection(make: MakeClient) -> None:
    with pytest.raises(ConnectError) as caught:
        await make(f"http://127.0.0.1:{free_port()}").open("GET", "/v1/x")
    assert (str(caught.value), caught.value.refused) == ("the connection was refused", True)


async def test_a_name_that_does_not_exist(make: MakeClient) -> None:
    with pytest.raises(ConnectError) as caught:
        await make("http://nothing.invalid").open("GET", "/v1/x")
    assert not caught.value.refused
    assert str(caught.value) in {
        "Name or service not known",
        "Temporary failure in name resolution",
        "No address associated with hostname",
    }


async def test_a_name_that_is_no_punycode(make: MakeClient) -> None:
    with pytest.raises(ConnectError):
        await make("http://xn--zz.invalid").open("GET", "/v1/x")


async def test_a_host_that_does_not_answer(make: MakeClient) -> None:
    """A listening socket whose queue is full drops further attempts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        client = make(f"http://127.0.0.1:{port}", timeouts=Timeouts(0.4, 20, 20))
        with pytest.raises(ConnectError) as caught:
            await client.open("GET", "/v1/x")
        assert str(caught.value) == "no answer to the attempt to connect"
        assert 0.3 < time.monotonic() - began < 5
        for filler in fillers:
            filler.close()


Resolve = Callable[..., Coroutine[Any, Any, list[Any]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and the addresses that they lead to."""
    known: dict[str, list[str]] = {}
    original: Resolve = asyncio.base_events.BaseEventLoop.getaddrinfo

    async def resolve(self: Any, host: str, port: int, **how: Any) -> list[Any]:
        how.pop("flags", None)
        how["family"] = 0
        hosts = known.get(host.decode() if isinstance(host, bytes) else host, [host])
        return [entry for one in hosts for entry in await original(self, one, port, **how)]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", resolve)
    return known


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
async def test_a_name_with_several_addresses(
    server: Server, make: MakeClient, names: dict[str, list[str]], addresses: list[str]
) -> None:
    """As `localhost`, which is ::1 and 127.0.0.1, whichever an engine serves."""
    names["two.test"] = addresses
    async with await make(f"http://two.test:{server.port}").open("GET", "/v1/x") as exchange:
        assert await exchange.read(99) == BODY
    assert server.requests[0].header("host") == [f"two.test:{server.port}"]
    names["two.test"] = ["127.0.0.2", "127.0.0.3"]
    with pytest.raises(ConnectError, match="the connection was refused") as caught:
        await make(f"http://two.test:{server.port}").open("GET", "/v1/x")
    assert caught.value.refused


async def test_a_container_that_moves_is_found_again(
    server: Server, make: MakeClient, names: dict[str, list[str]]
) -> None:
    names["engine"] = ["127.0.0.2"]
    client = make(f"http://engine:{server.port}")
    with pytest.raises(ConnectError, match="the connection was refused"):
        await client.open("GET", "/v1/x")
    names["engine"] = ["127.0.0.1"]  # at once: a failed attempt is no address to keep
    await (await client.open("GET", "/v1/x")).close()
    names["engine"] = ["127.0.0.3"]
    await asyncio.sleep(2.2)
    with pytest.raises(ConnectError, match="the connection was refused"):
        await client.open("GET", "/v1/x")
    assert len(server.requests) == 1


async def test_ipv6(make: MakeClient) -> None:
    server = Server()
    async with (
        server.serving(host="::1"),
        await make(f"http://[::1]:{server.port}").open("GET", "/v1/x") as exchange,
    ):
        assert await exchange.read(99) == BODY
    assert server.requests[0].header("host") == [f"[::1]:{server.port}"]
