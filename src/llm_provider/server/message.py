"""POST /api/chat: a message in, a text out, with any engine."""

from __future__ import annotations

import json

from llm_provider.providers.base import LLMProvider
from llm_provider.providers.chat_events import ChatEvents
from llm_provider.providers.chat_format import choice_of, one_message, text_of
from llm_provider.providers.encoded_body import editable
from llm_provider.providers.engine_http import Answer
from llm_provider.server.fields import FieldError, Fields
from llm_provider.server.translator import Asked, Translator


class MessageTranslator(Translator):
    """A message becomes a chat of one message, beside the other fields that came with it.

    An answer is the text, and what it came with; a stream is {"delta": "..."} for each piece of
    text, then [DONE].
    """

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        super().__init__(asked, provider)
        body = editable(self.body)
        message, system = body.pop("message"), body.pop("system", None)
        body["messages"] = one_message(message, system, {})["messages"]
        self.body = body
        self._reader = ChatEvents()
        self._begun = False

    def whole(self, answer: Answer) -> bytes:
        choice = choice_of(answer.data)
        shaped = {
            "answer": text_of(choice.get("message")).strip(),
            "model": answer.data.get("model"),
            "finish_reason": choice.get("finish_reason"),
            "usage": answer.data.get("usage"),
        }
        return json.dumps(shaped).encode()

    def feed(self, chunk: bytes) -> bytes:
        out = bytearray()
        for event in self._reader.feed(chunk):
            text = text_of(choice_of(event).get("delta")) if event.get("choices") else ""
            # A model whose first token begins a word comes out with a leading space.
            text = text if self._begun else text.lstrip()
            if text:
                self._begun = True
                out += f"data: {json.dumps({'delta': text})}\n\n".encode()
        return bytes(out)

    def rest(self) -> bytes:
        return b"data: [DONE]\n\n"


def check_system(fields: Fields) -> None:
    """Raise FieldError where `system` is there and no text."""
    if not fields.is_text("system") and fields.raw("system") not in (None, b"null"):
        raise FieldError("'system' must be a string.", "system")
