"""Settings of Ollama's /api/chat and /api/generate, as fields of OpenAI's bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import (
    as_flag,
    as_integer,
    as_number,
    as_object,
    as_texts,
)
from llm_provider.server.translations.thinking import ThinkingStyle, thinking_fields

# OpenAI's names, and below these the ones that llama-server and vLLM have in addition. A provider
# refuses what its engine would leave out.
_NUMBERS = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty"),
    *("min_p", "typical_p", "repeat_penalty", "mirostat_tau", "mirostat_eta"),
)
_INTEGERS = ("seed", "top_k", "repeat_last_n", "mirostat")
_LEVELS = ("low", "medium", "high", "max")


def option_fields(options: object) -> tuple[dict[str, Any], list[str]]:
    """Translate `options`; also return the names of those dropped.

    Dropped is what is decided where a model is loaded (num_ctx, num_gpu, ...), and what Ollama does
    not know either: it leaves that out itself.
    """
    fields: dict[str, Any] = {}
    dropped = []
    for key, value in as_object({} if options is None else options, "options").items():
        name = f"options.{key}"
        if value is None:
            continue
        if key in _NUMBERS:
            fields[key] = as_number(value, name)
        elif key in _INTEGERS:
            fields[key] = as_integer(value, name)
        elif key == "num_predict":
            # Negative: as many as the model wants, or as fit.
            if (limit := as_integer(value, name)) >= 0:
                fields["max_tokens"] = limit
        elif key == "stop":
            if stop := [value] if isinstance(value, str) else as_texts(value, name):
                fields["stop"] = stop
        else:
            dropped.append(name)
    return fields, dropped


def think_fields(think: object, style: ThinkingStyle) -> dict[str, Any]:
    """Translate `think`: a boolean or a level; without it the model's default holds."""
    if think is None:
        return {}
    if isinstance(think, bool):
        return thinking_fields(think, None, style)
    if think not in _LEVELS:
        raise TranslationError(
            "think",
            f"'think' is invalid: {think!r}. It must be true, false, {', '.join(_LEVELS)}.",
        )
    return thinking_fields(True, str(think), style)


def stream_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `stream`, which is on unless it is false."""
    if body.get("stream") is not None and not as_flag(body["stream"], "stream"):
        return {}
    return {"stream": True, "stream_options": {"include_usage": True}}


def logprob_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `logprobs` and `top_logprobs`, which counts only beside it."""
    if not body.get("logprobs"):
        return {}
    fields: dict[str, Any] = {"logprobs": as_flag(body["logprobs"], "logprobs")}
    if body.get("top_logprobs"):
        fields["top_logprobs"] = as_integer(body["top_logprobs"], "top_logprobs")
    return fields


def unread_names(body: Mapping[str, Any], read: tuple[str, ...]) -> list[str]:
    """Return the names of parameters that nothing reads and that ask for something.

    `keep_alive` asks for nothing where it is negative: the model stays loaded. `truncate` and
    `shift` ask for nothing where they are false: a prompt that does not fit is refused.
    """
    names = []
    for name, value in body.items():
        if name == "keep_alive":
            asks = value is not None and not str(value).startswith("-")
        else:
            asks = value not in (None, False, "", [], {})
        if asks and name not in read:
            names.append(name)
    return names
