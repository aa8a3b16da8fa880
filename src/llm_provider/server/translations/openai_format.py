"""What all translations read of OpenAI's chat completions, and of what engines add to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_provider.server.translations.errors import TranslationError

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True)
class Translated:
    """A request for an OpenAI route.

    `dropped` names the client's parameters that have no counterpart and only narrow or speed up
    what is done, such as `options.num_ctx`: a header can name them, or a strict server refuse them.
    """

    body: dict[str, Any]
    dropped: tuple[str, ...] = ()
    path: str = CHAT


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call; `id` and `name` come with the call's first piece."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Delta:
    """What one chunk of a streamed answer adds; a whole answer is one such delta.

    `finish` is OpenAI's finish_reason, `stop` the stop string that ended the text, where the engine
    tells (vLLM), `logprobs` the entries of logprobs.content, `error` the engine's error object.
    """

    reasoning: str = ""
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish: str | None = None
    stop: str | None = None
    logprobs: tuple[dict[str, Any], ...] = ()
    error: dict[str, Any] | None = None


def read_delta(data: Mapping[str, Any]) -> Delta:
    """Read a chunk, a completion of /v1/chat/completions, or one of /v1/completions."""
    if error := data.get("error"):
        return Delta(error=error if isinstance(error, dict) else {"message": str(error)})
    choice = _first_choice(data)
    message = choice.get("delta") or choice.get("message")
    message = message if isinstance(message, dict) else {}
    finish, stop, logprobs = (
        choice.get(name) for name in ("finish_reason", "stop_reason", "logprobs")
    )
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    return Delta(
        reasoning=_reasoning(message),
        text=_text(message.get("content")) or _text(choice.get("text")),
        tool_calls=tuple(_tool_calls(message.get("tool_calls"))),
        finish=finish if isinstance(finish, str) and finish else None,
        stop=stop if isinstance(stop, str) else None,
        logprobs=tuple(entry for entry in entries or () if isinstance(entry, dict)),
    )


def whole_calls(
    calls: tuple[ToolCallDelta, ...], finish: str | None
) -> list[tuple[ToolCallDelta, dict[str, Any]]]:
    """Return tool calls with their arguments, which OpenAI has as JSON in a string.

    Where the answer broke off at its token limit, a last call that is not whole is left out: the
    finish reason says that the answer is cut. Raises TranslationError for any other call whose
    arguments are no JSON object.
    """
    whole = []
    for call in calls:
        try:
            whole.append((call, _parse_arguments(call, finish)))
        except TranslationError:
            if finish != "length" or call is not calls[-1]:
                raise
    return whole


def _parse_arguments(call: ToolCallDelta, finish: str | None) -> dict[str, Any]:
    empty = "" if finish == "length" else "{}"  # a cut call may lack all of its arguments
    try:
        arguments = json.loads(call.arguments or empty, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise TranslationError(
            "tool_calls",
            f"The model called {call.name} with arguments that are no JSON object: "
            f"{call.arguments[:200]!r}. Send the request again.",
        )
    return arguments


def encode_arguments(arguments: dict[str, Any], name: str) -> str:
    """Return arguments as OpenAI has them: JSON in a string, as the model would write it."""
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise TranslationError(
            name, f"'{name}' is invalid: it cannot be written as JSON."
        ) from error


class ToolCallNumbers:
    """Says which call a streamed piece belongs to, by its index.

    Another id under a known index is another call: some engines give every call the index 0.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, str]] = {}
        self._count = 0

    def number(self, piece: ToolCallDelta) -> int:
        """Return the number of the piece's call, from 0 in the order in which calls began."""
        number, known = self._known.get(piece.index, (-1, ""))
        if number < 0 or (piece.id and known and piece.id != known):
            number, known = self._count, ""
            self._count += 1
        self._known[piece.index] = number, known or piece.id
        return number


class ToolCallCollector:
    """Puts the pieces of streamed tool calls together, in the order in which the calls began."""

    def __init__(self) -> None:
        self._numbers = ToolCallNumbers()
        self._calls: dict[int, ToolCallDelta] = {}

    def add(self, piece: ToolCallDelta) -> None:
        """Add a piece to its call."""
        number = self._numbers.number(piece)
        before = self._calls.get(number, ToolCallDelta(number, "", "", ""))
        self._calls[number] = ToolCallDelta(
            number,
            before.id or piece.id,
            before.name or piece.name,
            before.arguments + piece.arguments,
        )

    @property
    def calls(self) -> tuple[ToolCallDelta, ...]:
        """The calls so far."""
        return tuple(self._calls.values())


@dataclass(frozen=True)
class Usage:
    """Tokens of an answer; `cached` of the prompt's tokens were not computed again.

    Durations are in nanoseconds, and None where the engine does not tell.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    prompt_ns: int | None = None
    completion_ns: int | None = None


class UsageReader:
    """Reads token counts from chunks: `usage`, or the `timings` of llama-server."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}

    def feed(self, data: Mapping[str, Any]) -> None:
        """Read a chunk or a whole answer; later counts replace earlier ones."""
        if isinstance(usage := data.get("usage"), dict):
            self._usage = usage
        if isinstance(timings := data.get("timings"), dict):
            self._timings = timings

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        details = self._usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        computed, reused = (_count(self._timings.get(name)) for name in ("prompt_n", "cache_n"))
        has_usage = bool(self._usage)
        return Usage(
            prompt=_count(self._usage.get("prompt_tokens")) if has_usage else computed + reused,
            completion=_count(
                self._usage.get("completion_tokens")
                if has_usage
                else self._timings.get("predicted_n")
            ),
            cached=_count(cached) or reused,
            prompt_ns=_nanoseconds(self._timings.get("prompt_ms")),
            completion_ns=_nanoseconds(self._timings.get("predicted_ms")),
        )


def _first_choice(data: Mapping[str, Any]) -> dict[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _reasoning(message: Mapping[str, Any]) -> str:
    # llama-server and vLLM (`reasoning_content`), Ollama and later vLLMs (`reasoning`).
    return _text(message.get("reasoning_content")) or _text(message.get("reasoning"))


def _text(content: object) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _tool_calls(calls: object) -> list[ToolCallDelta]:
    pieces = []
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        if not isinstance(call, dict):
            continue
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        index = call.get("index")
        pieces.append(
            ToolCallDelta(
                index if isinstance(index, int) else place,
                _text(call.get("id")),
                _text(function.get("name")),
                _text(arguments),
            )
        )
    return pieces


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _nanoseconds(milliseconds: object) -> int | None:
    return round(milliseconds * 1e6) if isinstance(milliseconds, int | float) else None
