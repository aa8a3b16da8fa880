"""OpenAI's chat format: what bodies and answers hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_provider.errors import ConfigurationError, MalformedAnswer


def choice_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice of an answer or of an event that has choices.

    Raises MalformedAnswer.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedAnswer(f"The answer's choices are {choices!r}, not objects.")
    return choices[0]


def text_of(message: object) -> str:
    """Return the text of a message or of a delta; empty where it holds none.

    Raises MalformedAnswer.
    """
    content = message.get("content") if isinstance(message, dict) else None
    if content is not None and not isinstance(content, str):
        raise MalformedAnswer(f"The answer's content is {content!r}, not text.")
    return content or ""


def reasoning_of(message: object) -> str:
    """Return what a model that reasons said before its answer; empty where it does not tell."""
    if not isinstance(message, dict):
        return ""
    # llama-server and vLLM (`reasoning_content`), Ollama and later vLLMs (`reasoning`).
    for field in ("reasoning_content", "reasoning"):
        if isinstance(text := message.get(field), str) and text:
            return text
    return ""


def chat_body(
    body: Mapping[str, Any] | None,
    messages: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a chat body, given as a whole or as messages; `options` are its further fields.

    Raises ConfigurationError where neither is given, or both are, and for an option that is no
    field of it.
    """
    if (body is None) == (messages is None):
        found = "neither a body nor messages" if body is None else "a body and messages"
        raise ConfigurationError(
            f"The chat request is invalid: {found} are given. "
            "Give a body, or messages= with options."
        )
    for name in ("model", "stream"):
        if name in options:
            raise ConfigurationError(
                f"The option {name!r} is invalid: the provider sets that field. Leave it out."
            )
    if messages is None:
        return {**(body or {}), **options}
    return {**options, "messages": list(messages)}


def one_message(prompt: str, system: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat body that asks one thing; `options` are its further fields."""
    before = [{"role": "system", "content": system}] if system else []
    return {**options, "messages": [*before, {"role": "user", "content": prompt}]}
