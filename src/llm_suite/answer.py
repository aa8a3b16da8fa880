"""A model's answer, as expectations judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_provider.errors import MalformedAnswer
from llm_provider.providers.chat_format import choice_of, reasoning_of, text_of
from llm_suite.safe_text import shown


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants to be called; `arguments` is JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """A whole answer. `refusal` is OpenAI's field: the model's reason not to answer."""

    text: str
    seconds: float
    calls: tuple[ToolCall, ...] = ()
    refusal: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None

    def describe(self) -> str:
        """What a message says was found."""
        if self.calls:
            names = ", ".join(f"{each.name}({each.arguments})" for each in self.calls)
            return f"a call of {shown(names)}"
        if self.text.strip():
            cut = ", cut off at its longest length" if self.finish_reason == "length" else ""
            return f"{shown(self.text)}{cut}"
        if self.refusal:
            return f"a refusal: {shown(self.refusal)}"
        if self.reasoning:
            return (
                f"no text, only {len(self.reasoning)} characters of reasoning: a larger max_tokens"
                " lets the model come to its answer"
            )
        return "an empty answer"

    def message(self) -> dict[str, Any]:
        """The answer as a message of the conversation that goes on."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": each.id,
                    "type": "function",
                    "function": {"name": each.name, "arguments": each.arguments},
                }
                for each in self.calls
            ]
        elif not self.text:
            message["content"] = ""
        return message


def read_answer(completion: Mapping[str, Any], seconds: float) -> Answer:
    """Read a chat.completion. Raises MalformedAnswer."""
    choice = choice_of(completion)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedAnswer("The answer has no message.")
    refusal = message.get("refusal")
    usage = completion.get("usage")
    return Answer(
        text=text_of(message),
        seconds=seconds,
        calls=_calls(message.get("tool_calls") or []),
        refusal=refusal if isinstance(refusal, str) else "",
        reasoning=reasoning_of(message),
        finish_reason=choice.get("finish_reason"),
        prompt_tokens=_count(usage, "prompt_tokens"),
        tokens=_count(usage, "completion_tokens"),
    )


def _calls(found: object) -> tuple[ToolCall, ...]:
    calls = found if isinstance(found, list) else [found]
    read = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise MalformedAnswer(f"A tool call of the answer is {shown(str(call))}.")
        arguments = function.get("arguments")
        read.append(
            ToolCall(
                id=str(call.get("id") or f"call-{number}"),
                name=function["name"],
                arguments=arguments if isinstance(arguments, str) else "",
            )
        )
    return tuple(read)


def _count(usage: object, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None
