"""Messages, images and tools of Ollama's API, as OpenAI's."""

from __future__ import annotations

from typing import Any

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import (
    as_list,
    as_name,
    as_object,
    as_text,
    as_texts,
    objects_in,
)
from llm_provider.server.translations.openai_format import encode_arguments

_ROLES = ("system", "user", "assistant", "tool")
# How base64 of an image begins, by its file type: Ollama's clients send no type.
_IMAGES = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}


def chat_messages(messages: object) -> list[dict[str, Any]]:
    """Translate `messages`.

    Ollama's tool calls have no ids. Each gets one, and an answer of a tool belongs to the call that
    it names, else to the first call of its tool, else to the first, that has no answer yet; an
    answer whose call is gone (Home Assistant cuts a long history anywhere) is kept.
    """
    chat: list[dict[str, Any]] = []
    waiting: list[tuple[str, str]] = []
    for name, message in objects_in(messages, "messages"):
        role = as_text(message.get("role"), f"{name}.role").lower()
        if role not in _ROLES:
            raise TranslationError(
                f"{name}.role",
                f"'{name}.role' is invalid: {role!r}. It must be {', '.join(_ROLES)}.",
            )
        content = message.get("content")
        text = "" if content is None else as_text(content, f"{name}.content")
        translated: dict[str, Any] = {"role": role, "content": text}
        if message.get("images"):
            translated["content"] = with_images(text, message["images"], f"{name}.images")
        if message.get("tool_calls"):
            calls = _tool_calls(message["tool_calls"], f"{name}.tool_calls", len(chat))
            waiting = [(call["id"], call["function"]["name"]) for call in calls]
            translated |= {"content": text or None, "tool_calls": calls}
        if thinking := message.get("thinking"):
            thinking = as_text(thinking, f"{name}.thinking")
            # The names by which llama-server, and Ollama and vLLM, read earlier reasoning.
            translated |= {"reasoning_content": thinking, "reasoning": thinking}
        if role == "tool":
            translated["tool_call_id"] = _answered(message, name, waiting, len(chat))
        chat.append(translated)
    return chat


def with_images(text: str, images: object, name: str) -> list[dict[str, Any]]:
    """Return a message's content: its images, and its text behind them."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": _image_url(image)}}
        for image in as_texts(images, name)
    ]
    return [*parts, {"type": "text", "text": text}] if text else parts


def chat_tools(tools: object) -> list[dict[str, Any]]:
    """Translate `tools`, which have OpenAI's shape; what a schema lacks for OpenAI is added."""
    return [
        {"type": "function", "function": _function(tool.get("function"), f"{name}.function")}
        for name, tool in objects_in(tools, "tools")
    ]


def response_format(form: object) -> dict[str, Any] | None:
    """Translate `format`: "json", a JSON schema, or nothing."""
    if form is None or form == "":
        return None
    if form == "json":
        return {"type": "json_object"}
    if not isinstance(form, dict):
        raise TranslationError(
            "format", f"'format' is invalid: {form!r}. It must be \"json\" or a JSON schema."
        )
    return {
        "type": "json_schema",
        "json_schema": {"name": "format", "schema": form, "strict": True},
    }


def _image_url(image: str) -> str:
    if image.startswith("data:"):
        return image
    kind = next((kind for begin, kind in _IMAGES.items() if image.startswith(begin)), "jpeg")
    return f"data:image/{kind};base64,{image}"


def _tool_calls(calls: object, name: str, message: int) -> list[dict[str, Any]]:
    translated: list[dict[str, Any]] = []
    for place, call in objects_in(calls, name):
        function = as_object(call.get("function"), f"{place}.function")
        arguments = function.get("arguments")
        arguments = {} if arguments is None else as_object(arguments, f"{place}.function.arguments")
        translated.append(
            {
                "id": call.get("id") or f"call_{message}_{len(translated)}",
                "type": "function",
                "function": {
                    "name": as_name(function.get("name"), f"{place}.function.name"),
                    "arguments": encode_arguments(arguments, f"{place}.function.arguments"),
                },
            }
        )
    return translated


def _answered(
    message: dict[str, Any], name: str, waiting: list[tuple[str, str]], place: int
) -> str:
    """Return the id of the call that a tool's message answers, and take it from the waiting."""
    if message.get("tool_call_id"):
        call_id = as_text(message["tool_call_id"], f"{name}.tool_call_id")
        waiting[:] = [call for call in waiting if call[0] != call_id]
        return call_id
    tool = message.get("tool_name") or message.get("name")
    found = next((call for call in waiting if call[1] == tool), None)
    if found is None and waiting:
        found = waiting[0]
    if found is None:
        return f"call_{place}_0"
    waiting.remove(found)
    return found[0]


def _function(value: object, name: str) -> dict[str, Any]:
    function = as_object(value, name)
    translated: dict[str, Any] = {"name": as_name(function.get("name"), f"{name}.name")}
    if function.get("description"):
        translated["description"] = as_text(function["description"], f"{name}.description")
    parameters = as_object(function.get("parameters") or {}, f"{name}.parameters")
    properties = as_object(parameters.get("properties") or {}, f"{name}.parameters.properties")
    translated["parameters"] = {
        "type": "object",
        **{key: value for key, value in parameters.items() if value is not None},
        "properties": {key: _property(value) for key, value in properties.items()},
    }
    if "required" in translated["parameters"]:
        as_list(translated["parameters"]["required"], f"{name}.parameters.required")
    return translated


def _property(schema: Any) -> Any:
    """Return a property's schema; ollama-python joins a union's types: "integer, string"."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, str) and "," in kind:
        return {**schema, "type": [part.strip() for part in kind.split(",")]}
    return schema
