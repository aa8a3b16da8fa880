"""The answers of POST /api/chat: a message in, a text out."""

from __future__ import annotations

import json

from llm_provider.providers.chat_events import ChatEvents
from llm_provider.providers.chat_format import choice_of, text_of
from llm_provider.providers.engine_http import Answer
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.proxy import ProxyRequest, StreamedResponse, WholeResponse


class MessageResponse(WholeResponse):
    """POST /api/chat's answer: the text, and what it came with."""

    def _shaped(self, answer: Answer) -> bytes:
        choice = choice_of(answer.data)
        shaped = {
            "answer": text_of(choice.get("message")).strip(),
            "model": answer.data.get("model"),
            "finish_reason": choice.get("finish_reason"),
            "usage": answer.data.get("usage"),
        }
        return json.dumps(shaped).encode()


class StreamedMessageResponse(StreamedResponse):
    """POST /api/chat's answer as events: {"delta": "..."} for each piece of text, then [DONE]."""

    def __init__(self, queue: AdmissionQueue, asked: ProxyRequest) -> None:
        super().__init__(queue, asked)
        self._reader = ChatEvents()
        self._begun_text = False

    def _shaped(self, chunk: bytes) -> bytes:
        out = bytearray()
        for event in self._reader.feed(chunk):
            text = text_of(choice_of(event).get("delta")) if event.get("choices") else ""
            # A model whose first token begins a word comes out with a leading space.
            text = text if self._begun_text else text.lstrip()
            if text:
                self._begun_text = True
                out += f"data: {json.dumps({'delta': text})}\n\n".encode()
        return bytes(out)

    def _rest(self) -> bytes:
        return b"data: [DONE]\n\n"
