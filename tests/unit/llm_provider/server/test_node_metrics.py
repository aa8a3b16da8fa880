"""The metrics of the host's node exporter, and keys that open metrics alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.llamacpp import LlamaCpp
from llm_provider.providers.routes import CHAT
from llm_provider.server import node_metrics

from ..fake import AUTH, error_of, serve_api

PATH = "/metrics/node"
TEXT = b"# TYPE node_load1 gauge\nnode_load1 0.5\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n"
PROMETHEUS = "the-key-of-prometheus"


@asynccontextmanager
async def exporter(path: Path, answer: bytes | None) -> AsyncIterator[list[bytes]]:
    """A node exporter at a Unix socket; without an answer it is silent. Yields the requests."""
    asked: list[bytes] = []
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        if answer is None:
            await ends.wait()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield asked
        ends.set()


@asynccontextmanager
async def api(llm: LlamaCpp, keys: Path, socket: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve_api(llm, keys, CHAT_API_NODE_SOCKET=str(socket)) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        yield client


async def test_they_are_passed_on_as_they_are(llm: LlamaCpp, keys: Path, tmp_path: Path) -> None:
    socket = tmp_path / "node.sock"
    async with exporter(socket, HEAD + TEXT) as asked, api(llm, keys, socket) as client:
        answer = await client.get(PATH)
    assert (answer.status_code, answer.content) == (200, TEXT)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
    assert asked == [b"GET /metrics HTTP/1.1\r\n"]


async def test_a_key_is_needed(llm: LlamaCpp, keys: Path, tmp_path: Path) -> None:
    socket = tmp_path / "node.sock"
    async with exporter(socket, HEAD + TEXT) as asked, api(llm, keys, socket) as client:
        answer = await client.get(PATH, headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, asked) == (401, [])


async def test_a_host_without_one(llm: LlamaCpp, keys: Path, tmp_path: Path) -> None:
    async with api(llm, keys, tmp_path / "node.sock") as client:
        answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (501, "no_node_exporter")
    assert error_of(answer)["message"] == (
        "The node exporter is missing on this host. Set up the monitoring of the fleet."
    )


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", HEAD + TEXT * 2],
    ids=["nothing", "an error", "too much"],
)
async def test_an_answer_that_is_none(
    llm: LlamaCpp, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(node_metrics, "MOST_BYTES", len(TEXT))
    socket = tmp_path / "node.sock"
    async with exporter(socket, answer), api(llm, keys, socket) as client:
        refused = await client.get(PATH)
    assert (refused.status_code, error_of(refused)["code"]) == (502, "node_exporter_unreachable")
    assert str(tmp_path) not in refused.text


async def test_a_socket_without_a_program(llm: LlamaCpp, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "node.sock").write_text("")
    async with api(llm, keys, tmp_path / "node.sock") as client:
        answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (502, "node_exporter_unreachable")


async def test_one_that_is_silent(
    llm: LlamaCpp, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_metrics, "SECONDS", 0.2)
    socket = tmp_path / "node.sock"
    async with exporter(socket, None), api(llm, keys, socket) as client:
        answer = await client.get(PATH)
    assert (answer.status_code, error_of(answer)["code"]) == (504, "node_exporter_timeout")


def write_key(keys: Path) -> None:
    digest = sha256(PROMETHEUS.encode()).hexdigest()
    line = {"name": "monitoring", "sha256": digest, "metrics_only": True}
    keys.write_text(json.dumps(line) + "\n")


async def test_a_key_for_metrics_alone(llm: LlamaCpp, keys: Path, tmp_path: Path) -> None:
    write_key(keys)
    socket = tmp_path / "node.sock"
    async with exporter(socket, HEAD + TEXT), api(llm, keys, socket) as client:
        client.headers["Authorization"] = f"Bearer {PROMETHEUS}"
        for path in ("/metrics", "/metrics/engine", PATH):
            assert (await client.get(path)).status_code == 200, path
            assert (await client.head(path)).status_code == 200, path
        others = [
            *[await client.get(path) for path in ("/ready", "/v1/models", "/openapi.json")],
            await client.post(CHAT, json={"messages": [{"role": "user", "content": "Hello"}]}),
        ]
    for answer in others:
        assert answer.status_code == 403
        assert error_of(answer) == {
            "message": "The key monitoring opens the metrics alone. Send the key of a client.",
            "type": "invalid_request_error",
            "param": None,
            "code": "key_for_metrics_only",
        }
