"""The events of a streamed chat answer, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llm_provider.errors import MalformedAnswer
from llm_provider.providers.chat_format import reasoning_of, text_of
from llm_provider.providers.chat_types import ChatCompletion, FunctionCall, ToolCall, Usage

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class ChatCompletionAccumulator:
    """A streamed chat answer, put together as its events arrive.

        answer = ChatCompletionAccumulator()
        async for event in llm.stream(messages=messages):
            answer.add(event)
        print(answer.text, answer.usage)

    `text`, `reasoning`, `tool_calls` and `finish_reason` are those of the first choice;
    `completion` has all choices.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        """Pieces of the text, as they arrived."""
        self.thoughts: list[str] = []
        """Pieces of what a model that reasons said before its answer."""
        self._fields: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        """What a model that reasons has said before its answer, so far."""
        return "".join(self.thoughts)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; `arguments` are complete at the end of the stream."""
        return self._first.tool_calls()

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended; None before its end."""
        return self._first.finish_reason

    @property
    def model(self) -> str | None:
        """The name of the model that the answer gives."""
        model = self._fields.get("model")
        return model if isinstance(model, str) else None

    @property
    def usage(self) -> Usage | None:
        """Numbers of tokens; None where the engine did not send them (`stream_options`)."""
        usage = self._fields.get("usage")
        return cast(Usage, usage) if isinstance(usage, dict) else None

    def add(self, event: Mapping[str, Any]) -> str:
        """Add an event; returns the text that it added to the first choice.

        Raises MalformedAnswer.
        """
        choices = event.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
            raise MalformedAnswer(f"The answer's choices are {choices!r}, not objects.")
        for name, value in event.items():
            if name not in ("choices", "object") and value is not None:
                self._fields[name] = value
        added = ""
        for each in choices:
            text, thought = self._of(each).add(each)
            if each.get("index", 0) == 0:
                added += text
                self.texts += [text] if text else []
                self.thoughts += [thought] if thought else []
        return added

    def completion(self) -> ChatCompletion:
        """Return what `chat` would have returned, as far as it has arrived."""
        choices = [self._choices[index].as_dict(index) for index in sorted(self._choices)]
        whole = {**self._fields, "object": "chat.completion", "choices": choices}
        return cast(ChatCompletion, whole)

    @property
    def _first(self) -> _Choice:
        return self._choices.get(0) or _Choice()

    def _of(self, choice: Mapping[str, Any]) -> _Choice:
        index = choice.get("index", 0)
        if not isinstance(index, int):
            raise MalformedAnswer(f"The index of a choice is {index!r}, not a number.")
        return self._choices.setdefault(index, _Choice())


class _Choice:
    """One of the answers."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._parts: dict[str, list[str]] = {}
        self._calls: dict[int, _ToolCall] = {}
        self._logprobs: dict[str, list[Any]] = {}

    def add(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        """Add one event's part; returns its text and its reasoning."""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta")
        text, thought = text_of(delta), reasoning_of(delta)
        if isinstance(delta, dict):
            for name in _TEXTS:
                if isinstance(piece := delta.get(name), str):
                    self._parts.setdefault(name, []).append(piece)
            self._add_calls(delta.get("tool_calls") or [])
        if isinstance(logprobs := choice.get("logprobs"), dict):
            for name, entries in logprobs.items():
                self._logprobs.setdefault(name, []).extend(entries or [])
        return text, thought

    def _add_calls(self, calls: object) -> None:
        if not isinstance(calls, list):
            raise MalformedAnswer(f"The tool calls of the answer are {calls!r}, not a list.")
        for call in calls:
            if not isinstance(call, dict):
                raise MalformedAnswer(f"A tool call of the answer is {call!r}, not an object.")
            # A call without an index is complete, and another one than those before.
            index = call.get("index", len(self._calls))
            if not isinstance(index, int):
                raise MalformedAnswer(f"The index of a tool call is {index!r}, not a number.")
            self._calls.setdefault(index, _ToolCall()).add(call)

    def tool_calls(self) -> list[ToolCall]:
        return [self._calls[index].as_dict() for index in sorted(self._calls)]

    def as_dict(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        message |= {name: "".join(parts) for name, parts in self._parts.items()}
        if self._calls:
            message["tool_calls"] = self.tool_calls()
        whole = {"index": index, "message": message, "finish_reason": self.finish_reason}
        return {**whole, "logprobs": self._logprobs} if self._logprobs else whole


class _ToolCall:
    """A call whose arguments arrive in pieces."""

    def __init__(self) -> None:
        self._id = self._name = ""
        self._arguments: list[str] = []

    def add(self, delta: Mapping[str, Any]) -> None:
        function = delta.get("function")
        if not isinstance(function, dict):
            function = {}
        # Some engines repeat id and name with each piece.
        self._id = self._id or str(delta.get("id") or "")
        self._name = self._name or str(function.get("name") or "")
        self._arguments.append(str(function.get("arguments") or ""))

    def as_dict(self) -> ToolCall:
        function: FunctionCall = {"name": self._name, "arguments": "".join(self._arguments)}
        return {"id": self._id, "type": "function", "function": function}
