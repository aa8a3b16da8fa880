"""The fixtures, and answers for the SDKs that are translated from the engines' in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_provider.server.translations.anthropic_message import completion_to_message
from llm_provider.server.translations.anthropic_request import messages_to_chat
from llm_provider.server.translations.anthropic_stream import MessageStream
from llm_provider.server.translations.ollama_request import chat_to_chat, generate_to_chat
from llm_provider.server.translations.ollama_response import (
    Shape,
    Stopwatch,
    completion_to_answer,
)
from llm_provider.server.translations.ollama_stream import OllamaStream

_FIXTURES = Path(__file__).parent.parent / "fixtures"


def load(name: str) -> dict[str, Any]:
    """Return the cases of a fixture; each file says where it is from."""
    data = json.loads((_FIXTURES / f"{name}.json").read_text())
    assert data["source"]
    cases: dict[str, Any] = data["cases"]
    return cases


ANSWERS = load("openai_answers")
STREAMS = load("openai_streams")


class Ticks:
    """A clock that is a millisecond later at each look."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


def stopwatch() -> Stopwatch:
    return Stopwatch(1_764_460_800_000_000_000, Ticks())


def anthropic_stream(chunks: Iterable[Mapping[str, Any]], model: str = "qwen3-4b") -> bytes:
    stream = MessageStream(model=model, message_id="msg_1")
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.finish()


def ollama_stream(chunks: Iterable[Mapping[str, Any]], shape: Shape = Shape.CHAT) -> bytes:
    stream = OllamaStream(shape=shape, model="qwen3:4b", stopwatch=stopwatch())
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.finish()


def answer_anthropic(body: dict[str, Any], answer: str) -> tuple[str, bytes]:
    """Return content type and body of an answer to POST /v1/messages."""
    translated = messages_to_chat(body)
    if translated.body.get("stream"):
        return "text/event-stream", anthropic_stream(STREAMS[answer], body["model"])
    message = completion_to_message(ANSWERS[answer], model=body["model"], message_id="msg_1")
    return "application/json", json.dumps(message).encode()


def answer_ollama(path: str, body: dict[str, Any], answer: str) -> tuple[str, bytes]:
    """Return content type and body of an answer to POST /api/chat or /api/generate."""
    shape = Shape(path)
    translated = {Shape.CHAT: chat_to_chat, Shape.GENERATE: generate_to_chat}[shape](body)
    if translated.body.get("stream"):
        return "application/x-ndjson", ollama_stream(STREAMS[answer], shape)
    whole = completion_to_answer(
        ANSWERS[answer], shape=shape, model=body["model"], stopwatch=stopwatch()
    )
    return "application/json", json.dumps(whole).encode()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes as a network may."""
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]
