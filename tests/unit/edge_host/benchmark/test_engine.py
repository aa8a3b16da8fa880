"""The engine asked at its port, by a real server that streams as engines do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge_host.benchmark.engine import EngineError, ask_engine
from edge_host.constants import ENGINE_KEY, SECRETS

KEY = "the-engine's-own-key"
PAUSE = 0.01


class Engine(BaseHTTPRequestHandler):
    """Answers with five tokens, PAUSE seconds apart, where the key is right."""

    bodies: ClassVar[list[dict[str, Any]]] = []
    usage: ClassVar[dict[str, Any]] = {}
    texts: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"The key is wrong.")
            return
        self.send_response(200)
        self.end_headers()
        self._event({"choices": [{"delta": {"role": "assistant", "content": None}}]})
        time.sleep(2 * PAUSE)
        for text in self.texts:
            self._event({"choices": [{"delta": {"content": text}}]})
            time.sleep(PAUSE)
        self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": self.usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    Engine.bodies.clear()
    Engine.texts[:] = ["a"] * 5
    Engine.usage.clear()
    Engine.usage.update(prompt_tokens=100, completion_tokens=5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    key = tmp_path / SECRETS / ENGINE_KEY
    key.parent.mkdir()
    key.write_text(f"{KEY}\n")
    return tmp_path


def ask(root: Path, port: int, requests: int = 2) -> dict[str, Any]:
    return ask_engine(root, "m", "Tell.", 9, requests, 30, port)


def test_the_speed_of_the_engine(root: Path, port: int) -> None:
    found = ask(root, port)
    assert (found["requests"], found["tokens"], found["prompt_tokens"]) == (2, 10, 200)
    # Four pauses between five tokens; a busy machine takes longer.
    assert 0 < found["tokens_per_second"] <= 1 / PAUSE
    assert found["ttft_ms"] >= 2 * PAUSE * 1000
    assert found["prompt_tokens_per_second"] == pytest.approx(
        100 / (found["ttft_ms"] / 1000), rel=0.5
    )
    prompts = [body["messages"][0]["content"] for body in Engine.bodies]
    # The first only warms up; each is unlike the others from its begin on.
    assert prompts == ["0. Tell.", "1. Tell.", "2. Tell."]
    assert Engine.bodies[0]["max_tokens"] == 9


def test_tokens_of_the_cache_were_not_read(root: Path, port: int) -> None:
    Engine.usage["prompt_tokens_details"] = {"cached_tokens": 90}
    assert ask(root, port)["prompt_tokens"] == 20


def test_an_engine_that_counts_nothing(root: Path, port: int) -> None:
    Engine.usage.clear()
    found = ask(root, port)
    assert (found["tokens"], found["prompt_tokens_per_second"]) == (10, None)


def test_a_wrong_key_is_reported(root: Path, port: int) -> None:
    (root / SECRETS / ENGINE_KEY).write_text("another\n")
    with pytest.raises(EngineError, match="answered with status 401: The key is wrong"):
        ask(root, port)


def test_an_answer_without_text_is_reported(root: Path, port: int) -> None:
    Engine.texts.clear()
    with pytest.raises(EngineError, match="gave an answer without text"):
        ask(root, port)


def test_no_engine_and_no_key_are_reported(root: Path) -> None:
    with pytest.raises(EngineError, match="the engine at port 1 does not answer"):
        ask(root, 1)
    (root / SECRETS / ENGINE_KEY).unlink()
    with pytest.raises(EngineError, match="the engine's key cannot be read"):
        ask(root, 1)
