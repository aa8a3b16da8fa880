"""Requests of Ollama's /api/chat and /api/generate, as OpenAI bodies.

Field by field of the request types of ollama-python 0.6.3 and of Ollama's own api/types.go. Ollama
streams unless it is asked not to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import as_list, as_name, as_text, require
from llm_provider.server.translations.ollama_messages import (
    chat_messages,
    chat_tools,
    response_format,
    with_images,
)
from llm_provider.server.translations.ollama_options import (
    logprob_fields,
    option_fields,
    stream_fields,
    think_fields,
    unread_names,
)
from llm_provider.server.translations.openai_format import COMPLETIONS, Translated
from llm_provider.server.translations.thinking import ThinkingStyle

_COMMON = ("model", "stream", "format", "options", "think", "logprobs", "top_logprobs")
_CHAT = (*_COMMON, "messages", "tools")
_GENERATE = (*_COMMON, "prompt", "system", "images", "raw")
_REFUSED = {
    "suffix": "send a text with a gap to /infill, where the engine offers it",
    "template": "the model's own template is used; send 'raw' with a prompt that is complete",
    "context": "send the conversation as messages to /api/chat",
    "width": "no images are generated",
    "height": "no images are generated",
    "steps": "no images are generated",
    "_debug_render_only": "send the messages to /apply-template, where the engine offers it",
}
_NOT_RAW = ("system", "template", "images", "format", "think", "logprobs")


def is_load_request(body: Mapping[str, Any]) -> bool:
    """Return whether a request has nothing to answer: Ollama only loads, or unloads, the model.

    Raises TranslationError for one that unloads.
    """
    if body.get("messages") or body.get("prompt") or body.get("images"):
        return False
    if body.get("keep_alive") in (0, "0", "0s"):
        raise TranslationError(
            "keep_alive",
            "'keep_alive' is not supported: the model stays loaded, and cannot be unloaded.",
        )
    return True


def bare_name(model: str) -> str:
    """Return a model's name without the tag `latest`, which Ollama's clients add."""
    return model.removesuffix(":latest")


def chat_to_chat(
    body: Mapping[str, Any], style: ThinkingStyle = ThinkingStyle.TEMPLATE
) -> Translated:
    """Translate a body of POST /api/chat. Raises TranslationError."""
    require(body, "model", "messages")
    _check(body)
    chat: dict[str, Any] = {"messages": chat_messages(body["messages"])}
    if not chat["messages"]:
        raise TranslationError("messages", "'messages' is invalid: it is empty.")
    if body.get("tools"):
        chat["tools"] = chat_tools(body["tools"])
    return _translated(body, chat, style, _CHAT)


def generate_to_chat(
    body: Mapping[str, Any], style: ThinkingStyle = ThinkingStyle.TEMPLATE
) -> Translated:
    """Translate a body of POST /api/generate: a chat of one message, raw a completion.

    Raises TranslationError.
    """
    require(body, "model")
    _check(body)
    prompt = as_text(body.get("prompt") or "", "prompt")
    if body.get("raw"):
        for name in _NOT_RAW:
            if body.get(name):
                raise TranslationError(name, f"'{name}' is not supported beside 'raw'.")
        return _translated(body, {"prompt": prompt}, style, _GENERATE, COMPLETIONS)
    messages: list[dict[str, Any]] = []
    if body.get("system"):
        messages.append({"role": "system", "content": as_text(body["system"], "system")})
    images = as_list(body.get("images") or [], "images")
    content = with_images(prompt, images, "images") if images else prompt
    messages.append({"role": "user", "content": content})
    return _translated(body, {"messages": messages}, style, _GENERATE)


def _check(body: Mapping[str, Any]) -> None:
    for name, advice in _REFUSED.items():
        if body.get(name) and not (name == "template" and body.get("raw")):
            raise TranslationError(name, f"'{name}' is not supported: {advice}.")


def _translated(
    body: Mapping[str, Any],
    content: dict[str, Any],
    style: ThinkingStyle,
    read: tuple[str, ...],
    path: str | None = None,
) -> Translated:
    fields, dropped = option_fields(body.get("options"))
    chat = {
        "model": bare_name(as_name(body["model"], "model")),
        **content,
        **fields,
        **think_fields(None if path else body.get("think"), style),
        **logprob_fields(body),
        **stream_fields(body),
    }
    if form := response_format(body.get("format")):
        chat["response_format"] = form
    names = (*unread_names(body, read), *dropped)
    return Translated(chat, names, path) if path else Translated(chat, names)
