"""The one interface to an engine, and everything the engines have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self, cast

import httpx

from llm_provider.errors import (
    ConfigurationError,
    EngineTimeoutError,
    MalformedAnswer,
    StreamInterruptedError,
    Unsupported,
)
from llm_provider.http.errors import TransportError
from llm_provider.http.settings import Timeouts
from llm_provider.http.transports import Verify
from llm_provider.providers.chat_events import ChatEvents, StreamEnd
from llm_provider.providers.chat_format import chat_body, choice_of, one_message, text_of
from llm_provider.providers.chat_types import ChatCompletion, ChatCompletionChunk
from llm_provider.providers.embeddings import Embeddings, read_embeddings
from llm_provider.providers.encoded_body import editable, encode_body
from llm_provider.providers.engine_http import MAX_ANSWER_BYTES, Answer, EngineHTTP
from llm_provider.providers.parameters.sorting import sort_fields
from llm_provider.providers.routes import CHAT, EMBEDDINGS
from llm_provider.providers.settings import DEFAULT_BASE_URL, DEFAULT_TIMEOUT
from llm_provider.providers.stream import Stream

OnDropped = Callable[[tuple[str, ...]], None]
"""Takes the parameters of a request that the engine ignores, before the request is sent."""

_log = logging.getLogger("llm_provider.parameters")


@dataclass(frozen=True)
class Capacity:
    """What an engine says of itself; None where it does not tell.

    `context_size`: tokens that one conversation may use. `parallel`: conversations at a time.
    `gpu_share`: how much of the model is in the GPU's memory, 0 to 1 (see `vram`). `vision`:
    whether it says that the model reads images.
    """

    context_size: int | None = None
    parallel: int | None = None
    gpu_share: float | None = None
    vision: bool = False


class LLMProvider(EngineHTTP, ABC):
    """An engine that answers OpenAI chat requests with one model.

    `model` is the name that the engine serves the model by; it is sent with every request,
    whatever the body says. `timeout` is a `Timeouts`, or seconds of silence from the engine.
    `headers` are sent with every request, and replace the module's own. `verify` is a CA file, an
    `ssl.SSLContext`, or False; `transport`, one of httpx, replaces the way to the engine. `strict`
    refuses every parameter that the engine would ignore; else those that do no harm are dropped,
    with a warning for each in the log. Use it as an async context manager, or call `close()`. One
    provider belongs to one event loop, and carries any number of requests at a time. Raises
    ConfigurationError for settings that cannot work.
    """

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
        timeout: float | Timeouts = DEFAULT_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        verify: Verify = True,
        transport: httpx.AsyncBaseTransport | None = None,
        strict: bool = False,
    ) -> None:
        if not model:
            raise ConfigurationError("No model is named; set LLM_MODEL or give model=.")
        super().__init__(base_url, api_key, timeout, headers or {}, verify, transport)
        self.model = model
        self.strict = strict
        self._warned: set[str] = set()

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
        """Close all connections, also those being made; streams still open end as interrupted."""
        await self._close()

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

    async def load(self) -> None:
        """Have the engine load the model, and return when it has.

        Engines that load as they start, most of them, need no telling: this does nothing there.
        """

    async def models(self) -> list[str]:
        """Return the names of the models that the engine serves (GET /v1/models)."""
        return [str(entry["id"]) for entry in await self._listed()]

    async def chat(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> ChatCompletion:
        """Send a chat request and return the whole answer.

        It is given as an OpenAI chat body or as `messages`; `options` are further fields of the
        body. Everything reaches the engine, save a body's `model` and `stream`, which are set here,
        and parameters that it would ignore without harm. Raises Unsupported for one whose loss
        changes the answer, and any of LLMError's kinds.
        """
        answer = (await self.send(CHAT, chat_body(body, messages, options))).data
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise MalformedAnswer(f"{self._who} gave a chat answer without choices.")
        return cast(ChatCompletion, answer)

    def stream(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Stream[ChatCompletionChunk]:
        """Return the events of the answer to a chat request, which is given as `chat` takes it.

        The request is sent once the stream is read. Closing the stream makes the engine stop its
        work at once. Reading it raises StreamInterruptedError or EngineTimeoutError with what had
        arrived, and what `chat` raises.
        """
        return Stream(self._events(chat_body(body, messages, options)))

    async def _events(self, body: Mapping[str, Any]) -> AsyncGenerator[ChatCompletionChunk, None]:
        reader = ChatEvents()
        received = bytearray()
        try:
            async with aclosing(self.raw_stream(CHAT, body)) as chunks:
                async for chunk in chunks:
                    received += chunk
                    for event in reader.feed(chunk):
                        yield cast(ChatCompletionChunk, event)
        except (StreamInterruptedError, EngineTimeoutError) as error:
            error.received = bytes(received)
            raise

    async def generate(self, prompt: str, *, system: str | None = None, **options: Any) -> str:
        """Return the answer's text to one message; `options` are further fields of a chat body.

        Raises what `chat` raises.
        """
        answer = await self.chat(one_message(prompt, system, options))
        return text_of(choice_of(answer).get("message"))

    def generate_stream(
        self, prompt: str, *, system: str | None = None, **options: Any
    ) -> Stream[str]:
        """Return the text of the answer to one message, piece by piece, as it arrives.

        Raises what `stream` raises.
        """
        return Stream(self._pieces(one_message(prompt, system, options)))

    async def _pieces(self, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        async with aclosing(self._events(body)) as events:
            async for event in events:
                if event.get("choices") and (text := text_of(choice_of(event).get("delta"))):
                    yield text

    async def embed(self, texts: str | Sequence[str], **options: Any) -> Embeddings:
        """Return a vector for each text; `options` are further fields of a body of /v1/embeddings.

        Raises Unsupported where the engine serves no embeddings, and any of LLMError's kinds.
        """
        asked = [texts] if isinstance(texts, str) else list(texts)
        answer = await self.send(EMBEDDINGS, {**options, "input": asked})
        return read_embeddings(answer.data, len(asked))

    async def send(
        self, path: str, body: Mapping[str, Any], *, on_dropped: OnDropped | None = None
    ) -> Answer:
        """POST a body to one of OpenAI's routes (/v1/...) and return the whole answer.

        An `EncodedBody` is passed on without being decoded, as far as the engine allows.
        `on_dropped` takes the parameters that the engine ignores, in place of a warning in the log.
        Raises what `chat` raises; Unsupported too where the engine has no such route.
        """
        data = await self._encode(path, body, stream=False, on_dropped=on_dropped)
        return await self._whole("POST", path, data, seconds=None)

    async def send_form(self, path: str, form: bytes, content_type: str) -> Answer:
        """POST a form (multipart/form-data) to one of the engine's routes.

        Its field `model` is the caller's to set. The answer is a text where the form asks for one.
        Raises what `send` raises.
        """
        return await self._post_form(path, form, content_type)

    async def raw_stream(
        self, path: str, body: Mapping[str, Any], *, on_dropped: OnDropped | None = None
    ) -> AsyncGenerator[bytes, None]:
        """POST a body to one of OpenAI's routes and yield the streamed answer's bytes as they come.

        They are server-sent events, cut anywhere; `llm_provider.providers.chat_events` reads
        them. Closing the generator closes the connection, which makes the engine stop its work. A
        stream that does not come to its proper end raises StreamInterruptedError. `on_dropped` as
        for `send`.
        """
        data = await self._encode(path, body, stream=True, on_dropped=on_dropped)
        count = 0
        ending = StreamEnd()
        try:
            async with self._request("POST", path, data) as answer:
                kind = answer.headers.get("content-type", "")
                if answer.status != 200 or not kind.startswith("text/event-stream"):
                    self._answer(path, answer.status, await answer.read(MAX_ANSWER_BYTES))
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
        except TransportError as error:
            if not ending.reached:  # else it is whole, however its connection ends
                raise self._translated(error, count) from error
        if not ending.reached:
            raise StreamInterruptedError(
                f"{self._who} ended its stream after {count} bytes, without its end."
            )

    # What an engine may do its own way.

    async def _body(self, path: str, body: Mapping[str, Any]) -> MutableMapping[str, Any]:
        """The body as this engine wants it. Raises Unsupported for what that cannot say."""
        return editable(body)

    # Requests.

    async def _listed(self) -> list[dict[str, Any]]:
        answer = await self._get("/v1/models")
        try:
            entries = list(answer["data"] or [])
            if all("id" in entry for entry in entries):
                return entries
        except (KeyError, TypeError):
            pass
        raise MalformedAnswer(f"{self._who} answered /v1/models without a list of models.")

    async def _encode(
        self, path: str, body: Mapping[str, Any], *, stream: bool, on_dropped: OnDropped | None
    ) -> bytes:
        fields = sort_fields(self.name, path, body, self.strict)
        if fields.refusal is not None:
            raise Unsupported(fields.refusal.message, param=fields.refusal.param)
        wanted = await self._body(path, body)
        wanted.update(model=self.model, stream=stream)
        for name in body:
            if name not in fields.kept and name in wanted:
                del wanted[name]
        if fields.dropped:
            (on_dropped or self._warn)(fields.dropped)
        return encode_body(wanted)

    def _warn(self, dropped: tuple[str, ...]) -> None:
        """Log parameters that the engine ignores, each once."""
        for name in dropped:
            if name not in self._warned:
                self._warned.add(name)
                _log.warning("%s ignores %r: it is left out.", self.name, name)
