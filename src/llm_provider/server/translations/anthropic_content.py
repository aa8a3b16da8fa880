"""Messages and content blocks of Anthropic's API, as OpenAI chat messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.fields import as_list, as_name, as_object, as_text, objects_in
from llm_provider.server.translations.openai_format import encode_arguments

# Claude Code begins its system prompt with a line that differs in each request, for Anthropic's
# accounts. An engine could reuse nothing of the prompt's computation behind it.
_ATTRIBUTION = "x-anthropic-billing-header"

_REFUSED = {
    "document": "send its text as a text block",
    "search_result": "send its text as a text block",
    "container_upload": "there is no container to upload to",
    "tool_reference": "give all tools in 'tools'",
    "browser_state": "send its text as a text block",
}


@dataclass
class _Blocks:
    """The content blocks of one message, by what becomes of them."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    tool_results: list[dict[str, Any]] = field(default_factory=list)
    result_images: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def chat_messages(system: object, messages: object) -> tuple[list[dict[str, Any]], list[str]]:
    """Translate `system` and `messages`; also return the names of blocks that are dropped."""
    chat: list[dict[str, Any]] = []
    dropped: list[str] = []
    if text := _system(system, "system"):
        chat.append({"role": "system", "content": text})
    for name, message in objects_in(messages, "messages"):
        role, content = message.get("role"), message.get("content")
        if role == "system":
            if text := _system(content, f"{name}.content"):
                chat.append({"role": "system", "content": text})
            continue
        if role not in ("user", "assistant"):
            raise TranslationError(
                f"{name}.role",
                f"'{name}.role' is invalid: {role!r}. It must be user, assistant or system.",
            )
        if isinstance(content, str):
            chat.append({"role": role, "content": content})
            continue
        blocks = _read_blocks(content, f"{name}.content", role)
        dropped += blocks.dropped
        chat += _assistant(blocks) if role == "assistant" else _user(blocks)
    if not any(message["role"] != "system" for message in chat):
        raise TranslationError("messages", "'messages' is invalid: it has no message of a user.")
    return chat, dropped


def _system(content: object, name: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for place, block in objects_in(content, name):
        if block.get("type") != "text":
            raise _unsupported(block, place)
        texts.append(as_text(block.get("text"), f"{place}.text"))
    return "\n".join(text for text in texts if not text.startswith(_ATTRIBUTION))


def _user(blocks: _Blocks) -> list[dict[str, Any]]:
    # The answers to tool calls stand right behind the calls; OpenAI's have no images.
    messages = list(blocks.tool_results)
    if parts := blocks.result_images + blocks.parts:
        messages.append({"role": "user", "content": _joined(parts)})
    return messages


def _assistant(blocks: _Blocks) -> list[dict[str, Any]]:
    text = "".join(part["text"] for part in blocks.parts)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if blocks.tool_calls:
        message |= {"content": text or None, "tool_calls": blocks.tool_calls}
    if thinking := "".join(blocks.thinking):
        # The names by which llama-server, and Ollama and vLLM, read earlier reasoning.
        message |= {"reasoning_content": thinking, "reasoning": thinking}
    return [message]


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One text as a string, which every engine and template takes."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _read_blocks(content: object, name: str, role: str) -> _Blocks:
    blocks = _Blocks()
    if content == [] and role == "user":
        raise TranslationError(name, f"'{name}' is invalid: it is empty.")
    for place, block in objects_in(content, name):
        match block.get("type"), role:
            case "text", _:
                blocks.parts.append(_text_part(block, place))
            case "image", "user":
                blocks.parts.append(_image_part(block, place))
            case "tool_result", "user":
                result, images = _tool_result(block, place)
                blocks.tool_results.append(result)
                blocks.result_images += images
            case "tool_use", "assistant":
                blocks.tool_calls.append(_tool_call(block, place))
            case "thinking", "assistant":
                blocks.thinking.append(as_text(block.get("thinking"), f"{place}.thinking"))
            case "redacted_thinking", "assistant":
                blocks.dropped.append(place)  # only its maker can read it
            case _:
                raise _unsupported(block, place, role)
    return blocks


def _text_part(block: dict[str, Any], name: str) -> dict[str, Any]:
    if block.get("citations"):
        raise TranslationError(
            f"{name}.citations", f"'{name}.citations' is not supported. Leave citations out."
        )
    return {"type": "text", "text": as_text(block.get("text"), f"{name}.text")}


def _image_part(block: dict[str, Any], name: str) -> dict[str, Any]:
    source = as_object(block.get("source"), f"{name}.source")
    match source.get("type"):
        case "base64":
            kind = as_name(source.get("media_type"), f"{name}.source.media_type")
            url = f"data:{kind};base64,{as_name(source.get('data'), f'{name}.source.data')}"
        case "url":
            url = as_name(source.get("url"), f"{name}.source.url")
        case kind:
            raise TranslationError(
                f"{name}.source.type",
                f"'{name}.source.type' is not supported: {kind!r}. "
                "Send the image itself, as base64.",
            )
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_call(block: dict[str, Any], name: str) -> dict[str, Any]:
    arguments = as_object(block.get("input"), f"{name}.input")
    return {
        "id": as_name(block.get("id"), f"{name}.id"),
        "type": "function",
        "function": {
            "name": as_name(block.get("name"), f"{name}.name"),
            "arguments": encode_arguments(arguments, f"{name}.input"),
        },
    }


def _tool_result(block: dict[str, Any], name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Translate a tool's answer to a message of the tool, and the images that came with it."""
    content = block.get("content")
    texts, images = [], []
    if isinstance(content, str):
        texts.append(content)
    elif content is not None:
        for place, part in objects_in(as_list(content, f"{name}.content"), f"{name}.content"):
            if part.get("type") == "text":
                texts.append(_text_part(part, place)["text"])
            elif part.get("type") == "image":
                images.append(_image_part(part, place))
            else:
                raise _unsupported(part, place)
    text = "\n".join(texts)
    if block.get("is_error"):  # OpenAI's format has no mark for it
        text = f"Error: {text}" if text else "Error"
    call = as_name(block.get("tool_use_id"), f"{name}.tool_use_id")
    return {"role": "tool", "tool_call_id": call, "content": text}, images


def _unsupported(block: dict[str, Any], name: str, role: str = "") -> TranslationError:
    kind = block.get("type")
    if not isinstance(kind, str):
        return TranslationError(f"{name}.type", f"'{name}.type' is missing.")
    where = f" in a message of the {role}" if role else " here"
    advice = _REFUSED.get(kind)
    advice = advice[0].upper() + advice[1:] if advice else "Leave it out"
    return TranslationError(
        name, f"'{name}' is not supported: a block of type {kind!r}{where}. {advice}."
    )
