"""What is sent, and what is not, with each transport."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import InvalidSetting

from .conftest import MakeClient
from .server import BODY, Server, response, sends


async def test_the_request(server: Server, make: MakeClient) -> None:
    client = make(f"{server.url}/prefix", {"Authorization": "Bearer k", "User-Agent": "me"})
    data = b'{"text": "\xc3\xa9"}'
    async with await client.open("POST", "/v1/a%2Fb?x=%20y&z", data) as exchange:
        assert (exchange.status, await exchange.read(99)) == (200, BODY)
    sent = server.requests[0]
    assert sent.body == data
    assert sent.head.split("\r\n")[0] == "POST /prefix/v1/a%2Fb?x=%20y&z HTTP/1.1"
    names = [line.partition(":")[0].lower() for line in sent.head.split("\r\n")[1:]]
    assert sorted(names) == [
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    ]
    assert sent.header("host") == [f"127.0.0.1:{server.port}"]
    assert sent.header("connection") == ["close"]
    assert sent.header("content-type") == ["application/json"]
    assert sent.header("accept-encoding") == ["identity"]
    assert sent.header("user-agent") == ["me"]
    assert sent.header("authorization") == ["Bearer k"]


async def test_a_request_without_and_with_an_empty_body(server: Server, client: HTTPClient) -> None:
    await (await client.open("GET", "/v1/x")).close()
    await (await client.open("POST", "/v1/x", b"", content_type="text/plain")).close()
    assert server.requests[0].header("content-type") == []
    assert server.requests[1].header("content-type") == ["text/plain"]
    assert server.requests[1].header("content-length") == ["0"]


async def test_a_large_body(server: Server, client: HTTPClient) -> None:
    data = os.urandom(5_000_000)
    async with await client.open("POST", "/v1/x", data, content_type="audio/wav") as exchange:
        assert exchange.status == 200
    assert server.requests[0].body == data


async def test_credentials_in_the_url_are_sent_as_basic(server: Server, make: MakeClient) -> None:
    url = f"http://us%40er:pa:ss@127.0.0.1:{server.port}"
    await (await make(url).open("GET", "/")).close()
    await (await make(url, {"authorization": "Bearer k"}).open("GET", "/")).close()
    assert server.requests[0].header("authorization") == ["Basic dXNAZXI6cGE6c3M="]
    assert server.requests[0].header("host") == [f"127.0.0.1:{server.port}"]
    assert server.requests[1].header("authorization") == ["Bearer k"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/x HTTP/1.1\r\nX: y\r\n\r\n",
        "/v1/x\r\nX: y",
        "/v1/x\nX:y",
        "/v1/ x",
        "/v1/\tx",
        "/v1/\x00",
        "/v1/caf\u00e9",
        "/v1/%zz",
        "/v1/x#y",
        "v1/x",
        "",
        "http://elsewhere/",
        "@elsewhere/",
        "/v1/../../x",
        "/" + "x" * 8192,
        "/v1/%2E%2e/x",
    ],
)
async def test_a_path_cannot_change_the_request(
    server: Server, client: HTTPClient, path: str
) -> None:
    with pytest.raises(InvalidSetting, match="The path of a request is invalid"):
        await client.open("POST", path, b"{}")
    assert server.connections == []


@pytest.mark.parametrize("method", ["", "get", "GET /x HTTP/1.1\r\nX: y\r\n\r\nGET", "CONNECT"])
async def test_a_method_cannot_either(client: HTTPClient, server: Server, method: str) -> None:
    with pytest.raises(InvalidSetting, match="The method"):
        await client.open(method, "/v1/x")
    with pytest.raises(InvalidSetting, match="'content-type' is invalid"):
        await client.open("POST", "/v1/x", b"", content_type="a\r\nX: y")
    assert server.connections == []


async def test_cookies_are_neither_kept_nor_sent(server: Server, make: MakeClient) -> None:
    client = make(f"http://localhost:{server.port}")  # some keep none for an IP address
    server.handler = sends(response(BODY, "Set-Cookie: a=b; Path=/", "Set-Cookie: c=d"))
    for _ in range(2):
        await (await client.open("GET", "/v1/x")).read(99)
    assert [request.header("cookie") for request in server.requests] == [[], []]


async def test_redirects_are_not_followed(server: Server, client: HTTPClient) -> None:
    other = Server()
    async with other.serving():
        location = f"Location: {other.url}/v1/x"
        for status in ("301 Moved", "302 Found", "303 Other", "307 There", "308 There"):
            server.handler = sends(response(BODY, location, status=status))
            async with await client.open("GET", "/v1/x") as exchange:
                assert (exchange.status, await exchange.read(99)) == (int(status[:3]), BODY)
    assert other.connections == []


async def test_the_environment_is_ignored(
    server: Server, kind: str, make: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with Server().serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with await make(server.url).open("GET", "/v1/x") as exchange:
            assert await exchange.read(99) == BODY
        async with HTTPClient(server.url) as default:
            await (await default.open("GET", "/v1/x")).close()
        assert proxy.connections == []
    assert [request.header("authorization") for request in server.requests] == [[], []]
