"""The chat API before an engine under test, and the two levels at which both are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from llm_provider import LLMProvider, get_llm_provider
from sandbox.instance import ROOT
from tests.integration.engines.running import CHAINS, EngineUnderTest, free_port, settings_of

KEY = "conformance-key-0123456789"
START_SECONDS = 120.0
CHAT = "/v1/chat/completions"


class ChatApi:
    """A chat API of its own process; `environ` says before which engine."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        keys = folder / "api_keys"
        keys.write_text(f"{KEY}\n", encoding="ascii")
        keys.chmod(0o600)
        self._log = folder / "log"
        self._port = free_port()
        self.base_url = f"http://127.0.0.1:{self._port}"
        self._environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "src"),
            "CHAT_API_KEYS_FILE": str(keys),
            **environ,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it listens."""
        words = ["-m", "llm_provider.server", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *words], env=self._environ, stdout=log, stderr=log
            )
        end = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, f"The chat API ended at once: {self.logs()}"
            assert time.monotonic() < end, f"The chat API does not listen: {self.logs()}"
            try:
                if httpx.get(f"{self.base_url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)

    def ready(self) -> bool:
        """Whether it says that its engine would answer."""
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.get(f"{self.base_url}/ready", headers=headers, timeout=120)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "The chat API has not been started."
        return self._process.pid

    def stop(self) -> None:
        """Tell it to stop, and see that it does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise

    def logs(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8")

    def client(self) -> httpx.AsyncClient:
        """A client that holds a key; nothing of it is bounded but silence."""
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=600,
            limits=httpx.Limits(max_connections=None),
        )


class Level(Protocol):
    """Where a chat body is put: to the module, or to the chat API."""

    async def chat(self, **body: Any) -> dict[str, Any]:
        """The whole answer."""

    def stream(self, **body: Any) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer, which came to its proper end."""


class _Module:
    def __init__(self, provider: LLMProvider) -> None:
        self._provider = provider

    async def chat(self, **body: Any) -> dict[str, Any]:
        return dict(await self._provider.chat(_with_messages(body)))

    async def stream(self, **body: Any) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._provider.stream(_with_messages(body))) as events:
            async for event in events:
                yield dict(event)


class _Api:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def chat(self, **body: Any) -> dict[str, Any]:
        answer = await self._client.post(CHAT, json=_with_messages(body))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def stream(self, **body: Any) -> AsyncGenerator[dict[str, Any], None]:
        asked = _with_messages(body) | {"stream": True}
        async with self._client.stream("POST", CHAT, json=asked) as answer:
            assert answer.status_code == 200, await answer.aread()
            async with aclosing(events_of(answer)) as events:
                async for event in events:
                    yield event


@dataclass(frozen=True)
class Served:
    """An engine that is ready, and a chat API before it."""

    engine: EngineUnderTest
    api: ChatApi

    @property
    def answer(self) -> str:
        """What the chain model that is served answers to anything."""
        return CHAINS[self.engine.model].answer

    def provider(self) -> LLMProvider:
        """The module's provider straight at the engine."""
        return provider_of(self.engine)

    @asynccontextmanager
    async def at(self, level: str) -> AsyncGenerator[Level, None]:
        """What answers chat bodies at a level: `module` or `api`."""
        if level == "module":
            async with self.provider() as provider:
                yield _Module(provider)
        else:
            async with self.api.client() as client:
                yield _Api(client)


def provider_of(running: EngineUnderTest, base_url: str | None = None) -> LLMProvider:
    """The module's provider for an engine, or for what stands at `base_url` before it."""
    return get_llm_provider(environ=settings_of(running), base_url=base_url, timeout=600)


async def events_of(answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """A stream's events, read strictly: `data: JSON` or comments, [DONE] last, nothing after."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    buffer = b""
    done = False
    async for chunk in answer.aiter_raw():
        buffer += chunk
        while b"\n\n" in buffer:
            event, _, buffer = buffer.partition(b"\n\n")
            assert not done, f"after [DONE] came {event!r}"
            # llama-server says it is alive when a long prompt keeps it from saying more.
            if event.startswith(b":"):
                continue
            assert event.startswith(b"data: ") and b"\n" not in event, event
            data = event.removeprefix(b"data: ")
            if data == b"[DONE]":
                done = True
                continue
            found = json.loads(data)
            assert "error" not in found, found
            yield found
    assert done, "The stream ended without [DONE]."
    assert not buffer.strip(), f"after the last event came {buffer!r}"


def text_of(events: Sequence[Mapping[str, Any]]) -> str:
    """The text that a stream's events make."""
    return "".join(pieces_of(events))


def pieces_of(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The pieces of text in a stream's events, those that hold some."""
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def finish_of(events: Sequence[Mapping[str, Any]]) -> str:
    """Why a stream ended: said once, in the last event that has choices."""
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
    assert [reason for reason in reasons if reason] == reasons[-1:], reasons
    reason: str = reasons[-1]
    return reason


def _with_messages(body: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Are you there?"}], **body}
