"""The one interface to an engine, and everything the engines have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import httpx

from llm_provider import __version__
from llm_provider.errors import (
    ConfigurationError,
    Interrupted,
    LLMError,
    MalformedAnswer,
    NotReachable,
    Rejected,
    TimedOut,
)
from llm_provider.sse import is_complete

DEFAULT_BASE_URL = "http://127.0.0.1:11434"
"""Where a host of this project publishes its engine, whichever it is, to itself alone."""
DEFAULT_TIMEOUT = 600.0
"""Seconds of silence allowed: a long prompt on a small board takes minutes to the first token."""
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 5.0
"""Seconds within which a question about the engine's state must be answered."""

_CHAT = "/v1/chat/completions"
_WORDS = 500


class LLMProvider(ABC):
    """An engine that answers OpenAI chat requests with one model.

    `model` is the name that the engine serves the model by; it is sent with every request,
    whatever the body says. `timeout` is in seconds of silence from the engine. `transport`
    replaces the network, for tests. Use it as an async context manager, or call `close()`.
    """

    name: ClassVar[str]

    def __init__(
        self,
        *,
        model: str,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not model:
            raise ConfigurationError("No model is named; set LLM_MODEL or give model=.")
        self.model = model
        self.base_url = _root(base_url)
        # llama-server closes a connection behind a streamed answer without saying so, and every
        # server closes an idle one some time: a request sent into such a connection is lost, and
        # may not be sent again since it may have run. So each request has its own connection,
        # announced as such. To an engine on the same host that costs a fraction of a millisecond.
        headers = {
            "Connection": "close",
            "Accept-Encoding": "identity",
            "User-Agent": f"edge-llm/{__version__}",
        }
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise ConfigurationError("The engine's API key holds characters no header can.")
            headers["Authorization"] = f"Bearer {api_key}"
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            # An engine is on this host or network; a proxy for the outside world is not for it.
            trust_env=False,
            transport=transport,
        )

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
        await self._client.aclose()

    @abstractmethod
    async def health(self) -> None:
        """Return if the engine's process answers, ready or not; raise LLMError if it does not."""

    @abstractmethod
    async def ready(self) -> None:
        """Return if the engine would answer a chat request now.

        Raises Loading with what it waits for, or another LLMError where waiting will not help.
        """

    async def load(self) -> None:  # noqa: B027 - doing nothing is right for most
        """Have the engine load the model, and return when it has.

        Engines that load as they start, most of them, need no telling: this does nothing there.
        """

    async def models(self) -> list[str]:
        """Return the names of the models that the engine serves (GET /v1/models)."""
        answer = self._answer(await self._get("/v1/models"))
        try:
            return [str(entry["id"]) for entry in answer["data"] or []]
        except (KeyError, TypeError) as error:
            raise MalformedAnswer(
                f"{self._who} answered /v1/models without a list of models."
            ) from error

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an OpenAI chat body and return the whole answer, an OpenAI chat.completion.

        Everything in `body` reaches the engine, save `model` and `stream`, which are set here.
        Raises any of LLMError's kinds.
        """
        answer = self._answer(await self._post(_CHAT, self._chat_body(body, stream=False)))
        if not isinstance(answer.get("choices"), list) or not answer["choices"]:
            raise MalformedAnswer(f"{self._who} gave a chat answer without choices.")
        return answer

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """Send an OpenAI chat body and yield the streamed answer's raw bytes, as they come.

        The bytes are server-sent events, cut anywhere; `llm_provider.sse` reads them. Closing
        the generator closes the connection, which makes the engine stop its work. A stream that
        does not end with `data: [DONE]` raises Interrupted; what had arrived is in it.
        """
        request = self._client.build_request(
            "POST", _CHAT, **_json(self._chat_body(body, stream=True))
        )
        received = bytearray()
        with self._translated(received):
            response = await self._client.send(request, stream=True)
            try:
                kind = response.headers.get("Content-Type", "")
                if response.status_code != 200 or not kind.startswith("text/event-stream"):
                    await response.aread()
                    self._answer(response)
                    raise MalformedAnswer(
                        f"{self._who} answered a streamed request with {kind or 'no content type'}"
                        ", not text/event-stream."
                    )
                async for chunk in response.aiter_raw():
                    received += chunk
                    yield chunk
            finally:
                await response.aclose()
        if not is_complete(received):
            raise Interrupted(
                f"{self._who} ended its stream after {len(received)} bytes, without [DONE].",
                received=bytes(received),
            )

    # What an engine may do its own way.

    def _chat_body(self, body: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        return {**body, "model": self.model, "stream": stream}

    def _refusal(self, status: int, words: str, error: dict[str, Any]) -> LLMError:
        return Rejected(
            f"{self._who} refused with status {status}: {words}",
            status=status,
            words=words,
            error=error,
        )

    def _unreachable(self, error: httpx.TransportError) -> LLMError:
        return NotReachable(f"{self._who} is not reachable: {_reason(error)}.")

    # Requests.

    @property
    def _who(self) -> str:
        return f"{self.name} at {self.base_url}"

    async def _get(self, path: str) -> httpx.Response:
        with self._translated():
            return await self._client.get(path, timeout=PROBE_SECONDS)

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        with self._translated():
            return await self._client.post(path, **_json(body))

    @contextmanager
    def _translated(self, received: bytearray | None = None) -> Iterator[None]:
        """Turn httpx's errors into this module's; `received` is what a stream has brought."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TimeoutException as error:
            raise TimedOut(
                f"{self._who} was silent for longer than allowed, "
                f"after {len(received or b'')} bytes of its answer.",
                received=bytes(received or b""),
            ) from error
        except (httpx.NetworkError, httpx.ProtocolError) as error:
            raise Interrupted(
                f"{self._who} broke the connection after {len(received or b'')} bytes "
                f"of its answer: {_reason(error)}.",
                received=bytes(received or b""),
            ) from error
        except httpx.HTTPError as error:
            raise MalformedAnswer(
                f"{self._who} gave an unreadable answer: {_reason(error)}."
            ) from error

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        """Return the JSON object that a fully read response holds, or raise why there is none."""
        try:
            answer = response.json()
        except ValueError:  # not JSON, or not UTF-8: told apart below, by the status
            answer = None
        if response.status_code != 200:
            raise self._refusal(response.status_code, *_words(response, answer))
        if not isinstance(answer, dict):
            raise MalformedAnswer(
                f"{self._who} answered 200 with what is not a JSON object: {response.text[:80]!r}."
            )
        if answer.get("error"):
            raise self._refusal(200, *_words(response, answer))
        return answer


def is_refused(error: BaseException) -> bool:
    """Whether a connection was actively refused: the host is there, the port is not open yet."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError):
            return True
        if isinstance(seen, BaseExceptionGroup):
            return all(is_refused(one) for one in seen.exceptions)
        seen = seen.__cause__ or seen.__context__
    return False


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


def _json(body: dict[str, Any]) -> dict[str, Any]:
    """`body` as httpx's arguments; ASCII escapes carry any text, lone surrogates included."""
    return {
        "content": json.dumps(body, separators=(",", ":")).encode(),
        "headers": {"Content-Type": "application/json"},
    }


def _words(response: httpx.Response, answer: object) -> tuple[str, dict[str, Any]]:
    """The engine's own message and its error object, from any of the shapes engines use."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {}
    words = error.get("message") or error.get("detail") or response.text.strip()
    return str(words)[:_WORDS] or response.reason_phrase, error


def _reason(error: BaseException) -> str:
    if is_refused(error):
        return "the connection was refused"
    if isinstance(error, httpx.ConnectTimeout):
        return "no answer to the attempt to connect"
    return str(error).rstrip(".") or type(error).__name__
