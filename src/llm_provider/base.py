"""The one interface to an engine, and everything the engines have in common."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from reprlib import repr as shortened
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from llm_provider import ENGINE_PORT, __version__
from llm_provider.errors import (
    ConfigurationError,
    EngineRefusedError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    MalformedAnswer,
    StreamInterruptedError,
    Unsupported,
)
from llm_provider.sse import Ending, EventParser, json_of
from llm_provider.wire import Exchange, Silent, Unreachable, Unreadable, Wire, WireError

DEFAULT_BASE_URL = f"http://127.0.0.1:{ENGINE_PORT}"
"""Where a host of this project publishes its engine, whichever it is, to itself alone."""
DEFAULT_TIMEOUT = 600.0
"""Seconds of silence allowed: a long prompt on a small board takes minutes to the first token."""
PROBE_SECONDS = 5.0
"""Seconds within which a question about the engine's state must be answered."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"

_NOTHING: tuple[Any, ...] = (None, {}, [], "")
# The one value of a field that engines drop that they do anyway.
_DONE_ANYWAY: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "ignore_eos": False,
    "repeat_penalty": 1,
    "mirostat": 0,
}

_WORDS = 500
_MOST_BYTES = 64 * 1024 * 1024
"""A whole answer's size, at most."""


@dataclass(frozen=True)
class Answer:
    """A whole answer: the engine's own bytes, and the JSON object that they hold."""

    raw: bytes
    data: dict[str, Any]


@dataclass(frozen=True)
class Capacity:
    """What an engine says of itself; None where it does not tell.

    `context_size`: tokens that one conversation may use. `parallel`: conversations at a time.
    `gpu_share`: how much of the model is in the GPU's memory, 0 to 1 (see `vram`).
    """

    context_size: int | None = None
    parallel: int | None = None
    gpu_share: float | None = None


class LLMProvider(ABC):
    """An engine that answers OpenAI chat requests with one model.

    `model` is the name that the engine serves the model by; it is sent with every request,
    whatever the body says. `timeout` is in seconds of silence from the engine. Use it as an async
    context manager, or call `close()`. One provider belongs to one event loop, and carries any
    number of requests at a time.
    """

    name: ClassVar[str]
    usage_on_request: ClassVar[bool] = True
    """Whether streams tell their number of tokens only where the body asks for it."""

    shares_context: ClassVar[bool] = False
    """Whether all conversations that run share one context, and fail together where it is full."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not model:
            raise ConfigurationError("No model is named; set LLM_MODEL or give model=.")
        self.model = model
        self.base_url = _root(base_url)
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": f"edge-llm/{__version__}",
        }
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise ConfigurationError("The engine's API key holds characters no header can.")
            headers["Authorization"] = f"Bearer {api_key}"
        self._wire = Wire(self.base_url, headers, timeout)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; streams still open end as interrupted."""
        self._closed = True
        self._wire.close()

    @abstractmethod
    async def health(self) -> None:
        """Return if the engine's process answers, ready or not; raise LLMError if it does not."""

    @abstractmethod
    async def ready(self) -> None:
        """Return if the engine would answer a chat request now.

        Raises EngineLoadingError with what it waits for, or another LLMError where waiting does
        not help.
        """

    @abstractmethod
    async def capacity(self) -> Capacity:
        """Ask a ready engine for its context size, its slots and its share of the GPU."""

    async def load(self) -> None:  # noqa: B027 - doing nothing is right for most
        """Have the engine load the model, and return when it has.

        Engines that load as they start, most of them, need no telling: this does nothing there.
        """

    async def models(self) -> list[str]:
        """Return the names of the models that the engine serves (GET /v1/models)."""
        return [str(entry["id"]) for entry in await self._listed()]

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an OpenAI chat body and return the whole answer, an OpenAI chat.completion.

        Everything in `body` reaches the engine, save `model` and `stream`, which are set here.
        Raises Unsupported for a field that this engine would drop, and any of LLMError's kinds.
        """
        answer = (await self.send(CHAT, body)).data
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise MalformedAnswer(f"{self._who} gave a chat answer without choices.")
        return answer

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Send an OpenAI chat body and yield the answer's events, each a chat.completion.chunk.

        Closing the generator makes the engine stop its work at once. Raises
        StreamInterruptedError or EngineTimeoutError with what had arrived, and what `chat` raises.
        """
        parser = EventParser()
        received = bytearray()
        try:
            async with aclosing(self.raw_stream(CHAT, body)) as chunks:
                async for chunk in chunks:
                    received += chunk
                    for event in parser.objects(chunk):
                        yield event
        except (StreamInterruptedError, EngineTimeoutError) as error:
            error.received = bytes(received)
            raise

    async def generate(self, prompt: str, *, system: str | None = None, **options: Any) -> str:
        """Return the answer's text to one message; `options` are further fields of a chat body.

        Raises what `chat` raises.
        """
        answer = await self.chat(one_message(prompt, system, options))
        return text_of(choice_of(answer).get("message"))

    async def generate_stream(
        self, prompt: str, *, system: str | None = None, **options: Any
    ) -> AsyncGenerator[str, None]:
        """Yield the text of the answer to one message, piece by piece, as it comes.

        Raises what `stream` raises.
        """
        async with aclosing(self.stream(one_message(prompt, system, options))) as events:
            async for event in events:
                if event.get("choices") and (text := text_of(choice_of(event).get("delta"))):
                    yield text

    async def send(self, path: str, body: Mapping[str, Any]) -> Answer:
        """POST a body to one of OpenAI's routes (/v1/...) and return the whole answer.

        Raises what `chat` raises; Unsupported too where the engine has no such route.
        """
        data = await self._encode(path, body, stream=False)
        return await self._whole("POST", path, data, seconds=None)

    async def raw_stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """POST a body to one of OpenAI's routes and yield the streamed answer's bytes as they come.

        They are server-sent events, cut anywhere; `llm_provider.sse` reads them. Closing the
        generator closes the connection, which makes the engine stop its work. A stream that does
        not come to its proper end raises StreamInterruptedError.
        """
        data = await self._encode(path, body, stream=True)
        count = 0
        ending = Ending()
        try:
            async with self._request("POST", path, data) as answer:
                kind = answer.headers.get("content-type", "")
                if answer.status != 200 or not kind.startswith("text/event-stream"):
                    self._answer(path, answer.status, await answer.read(_MOST_BYTES))
                    raise MalformedAnswer(
                        f"{self._who} answered a streamed request with {kind or 'no content type'}"
                        ", not text/event-stream."
                    )
                if packed := answer.headers.get("content-encoding"):
                    raise MalformedAnswer(
                        f"{self._who} packed its stream with {packed}, which was not asked for."
                    )
                while chunk := await answer.next():
                    if not count:
                        self._begun(path, chunk)
                    count += len(chunk)
                    ending.feed(chunk)
                    yield chunk
        except WireError as error:
            if not ending.complete:  # else it is whole, however its connection ends
                raise self._translated(error, count) from error
        if not ending.complete:
            raise StreamInterruptedError(
                f"{self._who} ended its stream after {count} bytes, without its end."
            )

    def _begun(self, path: str, chunk: bytes) -> None:
        """Raise what a stream's first event refuses: some look at a request after their 200."""
        event = json_of(chunk.partition(b"\n\n")[0]) if b'"error"' in chunk else None
        if isinstance(event, dict) and event.get("error"):
            code = _error_of(event).get("code")
            status = code if isinstance(code, int) else 500
            raise self._refusal(path, status, *_words(status, chunk, event))

    # What an engine may do its own way.

    async def _body(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as this engine wants it. Raises Unsupported for what it would drop."""
        return dict(body)

    def _refusal(self, path: str, status: int, words: str, error: dict[str, Any]) -> LLMError:
        if status in (405, 501) or (status == 404 and not isinstance(error.get("message"), str)):
            return Unsupported(f"{self.name} has no {path} here: {words}")
        if status == 500 and "is not supported" in words:
            # Pictures for a model that only reads: the request's fault, whatever the status says.
            return Unsupported(f"{self.name} refused: {words}", param="messages")
        return EngineRefusedError(
            f"{self._who} refused with status {status}: {words}",
            status=status,
            words=words,
            error=error,
        )

    def _unreachable(self, error: Unreachable) -> LLMError:
        return EngineUnreachableError(f"{self._who} is not reachable: {error}.")

    # Requests.

    @property
    def _who(self) -> str:
        return f"{self.name} at {self.base_url}"

    def _refuse(self, body: Mapping[str, Any], dropped: tuple[str, ...]) -> None:
        """Raise Unsupported for the first of the fields that an engine drops, if it asks for it."""
        for param in dropped:
            if body.get(param) not in _NOTHING and body[param] != _DONE_ANYWAY.get(param):
                raise self._unsupported(param, f"cannot do {param} {shortened(body[param])}")

    def _unsupported(self, param: str, why: str) -> Unsupported:
        return Unsupported(f"{self.name} {why}; leave '{param}' out.", param=param)

    async def _listed(self) -> list[dict[str, Any]]:
        answer = await self._get("/v1/models")
        try:
            entries = list(answer["data"] or [])
            if all("id" in entry for entry in entries):
                return entries
        except (KeyError, TypeError):
            pass
        raise MalformedAnswer(f"{self._who} answered /v1/models without a list of models.")

    async def _get(self, path: str) -> dict[str, Any]:
        return (await self._whole("GET", path, None, PROBE_SECONDS)).data

    async def _ok(self, path: str) -> None:
        """GET a path whose answer may be empty: status 200 is what counts."""
        await self._whole("GET", path, None, PROBE_SECONDS, empty=True)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return (await self._whole("POST", path, _json(body), None)).data

    async def _whole(
        self, method: str, path: str, data: bytes | None, seconds: float | None, empty: bool = False
    ) -> Answer:
        """The whole answer, within `seconds`; None: only silence is bounded, by the timeout."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._request(method, path, data) as answer,
            ):
                raw = await answer.read(_MOST_BYTES)
        except TimeoutError as error:
            raise self._translated(Silent("silence"), 0) from error
        except WireError as error:
            raise self._translated(error, 0) from error
        if empty and answer.status == 200:
            return Answer(raw, {})
        return Answer(raw, self._answer(path, answer.status, raw))

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, data: bytes | None
    ) -> AsyncGenerator[Exchange, None]:
        """Send a request; its answer's head has come when this is entered. Raises WireError."""
        if self._closed:
            raise EngineUnreachableError(
                f"{self._who} is not asked any more: this provider is closed."
            )
        answer = await self._wire.open(method, path, data)
        try:
            yield answer
        finally:
            answer.close()

    async def _encode(self, path: str, body: Mapping[str, Any], *, stream: bool) -> bytes:
        return _json({**await self._body(path, body), "model": self.model, "stream": stream})

    def _translated(self, error: WireError, count: int) -> LLMError:
        """This module's error for one on the wire; `count`: bytes of the answer so far."""
        match error:
            case Unreachable():
                return self._unreachable(error)
            case Silent():
                return EngineTimeoutError(
                    f"{self._who} was silent for longer than allowed, "
                    f"after {count} bytes of its answer."
                )
            case Unreadable():
                return MalformedAnswer(f"{self._who} gave an unreadable answer: {error}.")
        return StreamInterruptedError(
            f"{self._who} broke the connection after {count} bytes of its answer: {error}."
        )

    def _answer(self, path: str, status: int, raw: bytes) -> dict[str, Any]:
        """Return the JSON object that a fully read answer holds, or raise why there is none."""
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):  # told apart below, by the status
            answer = None
        if status != 200:
            raise self._refusal(path, status, *_words(status, raw, answer))
        if not isinstance(answer, dict):
            raise MalformedAnswer(
                f"{self._who} answered 200 with what is not a JSON object: {_text(raw)[:80]!r}."
            )
        if answer.get("error"):
            raise self._refusal(path, 200, *_words(200, raw, answer))
        return answer


def choice_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The first choice of an answer or of an event that has choices. Raises MalformedAnswer."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedAnswer(f"The answer's choices are {choices!r}, not objects.")
    return choices[0]


def text_of(message: object) -> str:
    """The text of a message or of a delta; empty where it holds none. Raises MalformedAnswer."""
    content = message.get("content") if isinstance(message, dict) else None
    if content is not None and not isinstance(content, str):
        raise MalformedAnswer(f"The answer's content is {content!r}, not text.")
    return content or ""


def one_message(prompt: str, system: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """A chat body that asks one thing; `options` are its further fields."""
    before = [{"role": "system", "content": system}] if system else []
    return {**options, "messages": [*before, {"role": "user", "content": prompt}]}


def _root(url: str) -> str:
    """The engine's root: people give OpenAI-style addresses, which end in /v1, as well."""
    url = url.rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"The address {url!r} is not usable; give one such as {DEFAULT_BASE_URL}."
        )
    return url


def _json(body: dict[str, Any]) -> bytes:
    """`body` on the wire; ASCII escapes carry any text, lone surrogates included."""
    return json.dumps(body, separators=(",", ":")).encode()


def _words(status: int, raw: bytes, answer: object) -> tuple[str, dict[str, Any]]:
    """The engine's own message and its error object, from any of the shapes engines use."""
    error = _error_of(answer)
    words = error.get("message") or error.get("detail") or _text(raw).strip()
    # Ollama passes on what its runner said as JSON inside its own message.
    while isinstance(words, str) and words.startswith("{"):
        try:
            inner = _error_of(json.loads(words))
        except (ValueError, RecursionError):
            break
        if not inner.get("message"):
            break
        words = inner["message"]
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"status {status}"
    return str(words)[:_WORDS] or phrase, error


def _error_of(answer: object) -> dict[str, Any]:
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
