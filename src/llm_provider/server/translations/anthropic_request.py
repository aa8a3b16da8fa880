"""Requests of Anthropic's /v1/messages and /v1/messages/count_tokens, as OpenAI chat bodies.

Field by field of `MessageCreateParams` in the anthropic SDK 2.14. What has no counterpart and would
change the answer is refused by name, as Anthropic refuses fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.server.translations.anthropic_content import chat_messages
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import (
    as_flag,
    as_integer,
    as_name,
    as_number,
    as_object,
    as_text,
    as_texts,
    objects_in,
    require,
)
from llm_provider.server.translations.openai_format import Translated
from llm_provider.server.translations.thinking import EFFORTS, ThinkingStyle, thinking_fields

_READ = (
    *("model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k"),
    *("stop_sequences", "stream", "metadata", "tools", "tool_choice", "thinking", "output_config"),
)
# Each engine caches prefixes by itself and has one speed and one tier; context is never edited.
_DROPPED = (
    *("cache_control", "service_tier", "speed", "diagnostics", "context_management"),
    *("user_profile_id", "workspace_id"),
)
_REFUSED = {
    "container": "there is no container in which code could run",
    "mcp_servers": "the server calls no tools itself; give the client's own tools in 'tools'",
    "inference_geo": "the request is computed on this host",
}


def messages_to_chat(
    body: Mapping[str, Any], style: ThinkingStyle = ThinkingStyle.TEMPLATE
) -> Translated:
    """Translate a body of POST /v1/messages. Raises TranslationError."""
    require(body, "model", "max_tokens", "messages")
    limit = as_integer(body["max_tokens"], "max_tokens")
    if limit < 1:
        raise TranslationError(
            "max_tokens", f"'max_tokens' is invalid: {limit}. It must be 1 or more."
        )
    chat, dropped = _prompt(body, style)
    chat["max_tokens"] = limit
    for name in ("temperature", "top_p"):
        if body.get(name) is not None:
            chat[name] = as_number(body[name], name)
    if body.get("top_k") is not None:
        chat["top_k"] = as_integer(body["top_k"], "top_k")
    if stop := as_texts(body.get("stop_sequences") or [], "stop_sequences"):
        chat["stop"] = stop
    if user := as_object(body.get("metadata") or {}, "metadata").get("user_id"):
        chat["user"] = as_text(user, "metadata.user_id")
    if body.get("stream") is not None and as_flag(body["stream"], "stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return Translated(chat, tuple(dropped))


def count_tokens_to_chat(
    body: Mapping[str, Any], style: ThinkingStyle = ThinkingStyle.TEMPLATE
) -> Translated:
    """Translate a body of POST /v1/messages/count_tokens. Raises TranslationError.

    The body has what an engine's chat template makes the prompt of: messages, tools, thinking.
    llama-server takes it at /apply-template, whose prompt /tokenize counts; vLLM at /tokenize.
    """
    require(body, "model", "messages")
    chat, dropped = _prompt(body, style)
    return Translated(chat, tuple(dropped))


def token_count(tokens: int) -> dict[str, int]:
    """Return the answer to a count_tokens request."""
    return {"input_tokens": tokens}


def _prompt(body: Mapping[str, Any], style: ThinkingStyle) -> tuple[dict[str, Any], list[str]]:
    """Translate what the prompt is made of; also return the names of what is dropped."""
    dropped = _check_names(body)
    chat: dict[str, Any] = {"model": as_name(body["model"], "model")}
    chat["messages"], unread = chat_messages(body.get("system"), body["messages"])
    dropped += unread
    if body.get("tools"):
        chat["tools"] = [_tool(tool, name) for name, tool in objects_in(body["tools"], "tools")]
    if body.get("tool_choice") is not None:
        chat |= _tool_choice(as_object(body["tool_choice"], "tool_choice"), chat.get("tools"))
    fields, unread = _thinking(body, style)
    return chat | fields, dropped + unread


def _check_names(body: Mapping[str, Any]) -> list[str]:
    dropped = []
    for name, value in body.items():
        if name in _READ or value is None:
            continue
        if name in _REFUSED and value:
            raise TranslationError(name, f"'{name}' is not supported: {_REFUSED[name]}.")
        if name in _DROPPED:
            dropped.append(name)
        elif name not in _REFUSED:
            raise TranslationError(
                name, f"'{name}' is not a parameter that this server knows. Leave it out."
            )
    return dropped


def _tool(tool: dict[str, Any], name: str) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise TranslationError(
            f"{name}.type",
            f"'{name}.type' is not supported: {tool['type']!r} is a tool of Anthropic's own. "
            "Only tools that the client defines with an 'input_schema' can be used.",
        )
    callers = tool.get("allowed_callers")
    if callers and "direct" not in callers:
        raise TranslationError(
            f"{name}.allowed_callers",
            f"'{name}.allowed_callers' is not supported: there is no code execution to call tools.",
        )
    function: dict[str, Any] = {"name": as_name(tool.get("name"), f"{name}.name")}
    if tool.get("description") is not None:
        function["description"] = as_text(tool["description"], f"{name}.description")
    function["parameters"] = as_object(tool.get("input_schema"), f"{name}.input_schema")
    if tool.get("strict") is not None:
        function["strict"] = as_flag(tool["strict"], f"{name}.strict")
    return {"type": "function", "function": function}


def _tool_choice(choice: dict[str, Any], tools: list[dict[str, Any]] | None) -> dict[str, Any]:
    kind = choice.get("type")
    if kind == "none":
        return {"tool_choice": "none"} if tools else {}
    if kind not in ("auto", "any", "tool"):
        raise TranslationError(
            "tool_choice.type",
            f"'tool_choice.type' is invalid: {kind!r}. It must be auto, any, tool or none.",
        )
    if not tools:
        raise TranslationError("tool_choice", "'tool_choice' is invalid: there are no 'tools'.")
    fields: dict[str, Any] = {"tool_choice": {"auto": "auto", "any": "required"}.get(kind)}
    if kind == "tool":
        wanted = as_name(choice.get("name"), "tool_choice.name")
        if wanted not in [tool["function"]["name"] for tool in tools]:
            raise TranslationError(
                "tool_choice.name", f"'tool_choice.name' is invalid: no tool is named {wanted!r}."
            )
        fields["tool_choice"] = {"type": "function", "function": {"name": wanted}}
    single = choice.get("disable_parallel_tool_use")
    if single is not None and as_flag(single, "tool_choice.disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields


def _thinking(body: Mapping[str, Any], style: ThinkingStyle) -> tuple[dict[str, Any], list[str]]:
    """Translate `thinking` and `output_config`; without `thinking` the model's default holds."""
    dropped: list[str] = []
    config = as_object(body.get("output_config") or {}, "output_config")
    for name in config:
        if name not in ("effort", "format"):
            raise TranslationError(
                f"output_config.{name}", f"'output_config.{name}' is not supported. Leave it out."
            )
    effort = config.get("effort")
    if effort is not None and effort not in EFFORTS:
        raise TranslationError(
            "output_config.effort",
            f"'output_config.effort' is invalid: {effort!r}. It must be {', '.join(EFFORTS)}.",
        )
    level = str(effort) if effort else None
    fields: dict[str, Any] = {}
    if body.get("thinking") is not None:
        thinking = as_object(body["thinking"], "thinking")
        kind = thinking.get("type")
        if kind not in ("enabled", "adaptive", "between_tools", "disabled"):
            raise TranslationError(
                "thinking.type",
                f"'thinking.type' is invalid: {kind!r}. It must be enabled, adaptive or disabled.",
            )
        fields = thinking_fields(kind != "disabled", level, style)
        unread = ("budget_tokens", "display")
        dropped += [f"thinking.{name}" for name in unread if thinking.get(name) is not None]
    elif level:
        fields = thinking_fields(True, level, style)
    if config.get("format") is not None:
        fields["response_format"] = _response_format(config["format"])
    return fields, dropped


def _response_format(value: object) -> dict[str, Any]:
    name = "output_config.format"
    form = as_object(value, name)
    if form.get("type") != "json_schema":
        raise TranslationError(
            f"{name}.type",
            f"'{name}.type' is invalid: {form.get('type')!r}. It must be json_schema.",
        )
    schema = as_object(form.get("schema"), f"{name}.schema")
    return {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": schema, "strict": True},
    }
