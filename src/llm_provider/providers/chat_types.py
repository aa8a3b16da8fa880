"""Types of the answers to chat requests: OpenAI's objects, as dictionaries.

At run time they are the dictionaries that the engine sent, with all of its fields: nothing is
converted, and only `choices` is checked. Fields that one engine alone sends are left out here.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class FunctionCall(TypedDict):
    """A call of a function; `arguments` are JSON, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A tool that the model wants to be called."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Usage(TypedDict):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(TypedDict):
    """What the model said. Of a model that reasons, engines name its thoughts differently."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]


class Choice(TypedDict):
    """One of the answers; without `n` there is one."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason | None
    logprobs: NotRequired[dict[str, Any] | None]


class ChatCompletion(TypedDict):
    """A whole answer: what `chat` returns. `created` is in seconds since 1970."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: NotRequired[Usage]


class FunctionCallDelta(TypedDict, total=False):
    """A part of a call: the name at first, then pieces of the arguments."""

    name: str
    arguments: str


class ToolCallDelta(TypedDict):
    """A part of the tool call number `index`."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: NotRequired[FunctionCallDelta]


class Delta(TypedDict, total=False):
    """What an event adds to the message."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str
    reasoning: str
    tool_calls: list[ToolCallDelta]


class ChunkChoice(TypedDict):
    """What an event adds to one of the answers."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: NotRequired[dict[str, Any] | None]


class ChatCompletionChunk(TypedDict):
    """An event of a streamed answer: what `stream` yields. The one with `usage` has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]
