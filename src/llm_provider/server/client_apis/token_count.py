"""How many tokens a chat has: /v1/messages/count_tokens, by what each engine offers for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.errors import MalformedAnswer
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.request_fields import join_text_parts
from llm_provider.providers.support import TOKENIZING


async def count_chat_tokens(
    provider: LLMProvider, path: str, chat: Mapping[str, Any], image_tokens: int
) -> int:
    """Return the tokens of an OpenAI chat body, as the engine's template and tokenizer make them.

    `path` is the engine's for COUNTING_TOKENS. llama-server renders the prompt, in which an image
    is a mark: each counts as `image_tokens`. Raises LLMError.
    """
    if path == TOKENIZING.paths.get(provider.name):
        messages = [join_text_parts(message) for message in chat["messages"]]
        answer = await provider.send(path, {**chat, "messages": messages})
        return _number(answer.data.get("count"), provider)
    prompt = (await provider.send(path, chat)).data.get("prompt")
    if not isinstance(prompt, str):
        raise MalformedAnswer(f"{provider.name} answered {path} without a prompt.")
    answer = await provider.send(
        TOKENIZING.paths[provider.name],
        {"content": prompt, "add_special": True, "parse_special": True},
    )
    tokens = answer.data.get("tokens")
    count = len(tokens) if isinstance(tokens, list) else None
    return _number(count, provider) + image_tokens * _images(chat)


def _number(count: object, provider: LLMProvider) -> int:
    if not isinstance(count, int):
        raise MalformedAnswer(f"{provider.name} answered /tokenize without tokens.")
    return count


def _images(chat: Mapping[str, Any]) -> int:
    return sum(
        1
        for message in chat["messages"]
        if isinstance(content := message.get("content"), list)
        for part in content
        if part.get("type") == "image_url"
    )
