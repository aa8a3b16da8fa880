"""Anthropic's API: /v1/messages and its errors. /v1/messages/count_tokens is in `token_count`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from llm_provider.providers.support import CHATTING
from llm_provider.server.client_apis.translation import Translation
from llm_provider.server.translations.anthropic_message import completion_to_message
from llm_provider.server.translations.anthropic_request import messages_to_chat
from llm_provider.server.translations.anthropic_stream import MessageStream
from llm_provider.server.translations.fields import as_flag, as_name

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"


def messages(body: Mapping[str, Any]) -> Translation:
    """Return the translation of a request to /v1/messages. Raises TranslationError."""
    model = as_name(body.get("model"), "model")
    message_id = f"msg_{uuid.uuid4().hex}"
    streamed = body.get("stream") is not None and as_flag(body["stream"], "stream")
    return Translation(
        feature=CHATTING,
        model=model,
        request=messages_to_chat,
        whole=partial(completion_to_message, model=model, message_id=message_id),
        stream=partial(MessageStream, model=model, message_id=message_id) if streamed else None,
    )
