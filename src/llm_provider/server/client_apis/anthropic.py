"""Anthropic's API: /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.server.client_apis.client_translator import (
    Stream,
    StreamingTranslator,
    accept_dropped,
    decode_fields,
    thinking_style,
)
from llm_provider.server.client_apis.token_count import count_chat_tokens
from llm_provider.server.fields import Fields
from llm_provider.server.translations.anthropic_message import completion_to_message
from llm_provider.server.translations.anthropic_request import (
    count_tokens_to_chat,
    messages_to_chat,
    token_count,
)
from llm_provider.server.translations.anthropic_stream import MessageStream
from llm_provider.server.translations.openai_format import Translated
from llm_provider.server.translations.thinking import ThinkingStyle
from llm_provider.server.translator import Asked, Translator

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"


class MessagesTranslator(StreamingTranslator):
    """A request to /v1/messages."""

    def translate(self, body: Mapping[str, Any], style: ThinkingStyle) -> Translated:
        self._model = str(body.get("model"))
        self._message_id = f"msg_{uuid.uuid4().hex}"
        return messages_to_chat(body, style)

    def translate_answer(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return completion_to_message(answer, model=self._model, message_id=self._message_id)

    def make_stream(self) -> Stream:
        return MessageStream(model=self._model, message_id=self._message_id)


class CountTokensTranslator(Translator):
    """A request to /v1/messages/count_tokens, which takes one or two of the engine's routes."""

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        body = decode_fields(asked.fields)
        translated = count_tokens_to_chat(body, thinking_style(provider.name))
        self._image_tokens = asked.image_tokens
        self.path = asked.route.feature.paths[provider.name]
        self.body = translated.body
        self.headers = []
        self.dropped = accept_dropped(translated, provider)

    async def send(self, provider: LLMProvider) -> Answer:
        count = await count_chat_tokens(provider, self.path, self.body, self._image_tokens)
        return Answer(b"", token_count(count))

    def whole(self, answer: Answer) -> bytes:
        return json.dumps(answer.data).encode()


def check_messages(fields: Fields) -> None:
    """Raise TranslationError where a request to /v1/messages cannot be translated."""
    messages_to_chat(decode_fields(fields))


def check_count(fields: Fields) -> None:
    """Raise TranslationError where a request to count tokens cannot be translated."""
    count_tokens_to_chat(decode_fields(fields))
