"""Requests to an engine, and what its failures are as this package's errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import httpx

from llm_provider import __version__
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
from llm_provider.http.blocks import read_block, split_blocks
from llm_provider.http.client import JSON, Exchange, HTTPClient
from llm_provider.http.errors import (
    ConnectError,
    InvalidResponse,
    InvalidSetting,
    ReadTimeout,
    TransportError,
)
from llm_provider.http.settings import Timeouts, check_headers
from llm_provider.http.transports import Verify
from llm_provider.http.url import BaseURL, parse_base_url
from llm_provider.providers.encoded_body import encode_body
from llm_provider.providers.error_body import decode, error_of, read_error
from llm_provider.providers.redaction import Redaction

PROBE_SECONDS = 5.0
"""Seconds within which a question about the engine's state must be answered."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A whole answer's size, at most."""


@dataclass(frozen=True)
class Answer:
    """A whole answer: the engine's own bytes, and the JSON object that they hold.

    `data` is empty where they are of another type, such as subtitles.
    """

    raw: bytes
    data: dict[str, Any]
    content_type: str = JSON


class EngineHTTP:
    """The connection to one engine; `LLMProvider` is what callers use."""

    name: ClassVar[str]

    base_url: str
    """The engine's address, without the `/v1` and the credentials that it was given with."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeout: float | Timeouts,
        headers: Mapping[str, str],
        verify: Verify,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        with _settings():
            url = _root(parse_base_url(base_url))
            sent = _headers(api_key, check_headers(headers))
            self._http = HTTPClient(url, sent, timeout, verify=verify, transport=transport)
        self.base_url = str(url)
        self._redaction = Redaction(url, sent)
        self._closed = False

    async def _close(self) -> None:
        self._closed = True
        await self._http.close()

    async def read_text(self, path: str, most: int, seconds: float) -> Answer:
        """GET a text of at most `most` bytes, such as the engine's metrics, within `seconds`.

        Raises Unsupported where the engine has no such route, and any of LLMError's kinds.
        """
        try:
            async with asyncio.timeout(seconds), self._request("GET", path, None) as answer:
                raw = await answer.read(most)
        except TimeoutError as error:
            raise self._translated(ReadTimeout("silence"), 0) from error
        except TransportError as error:
            raise self._translated(error, 0) from error
        if answer.status != 200:
            self._answer(path, answer.status, raw)
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/plain"):
            raise MalformedAnswer(
                f"{self._who} answered {path} with {kind or 'no content type'}, not text/plain."
            )
        return Answer(self._redaction.hide(raw), {}, kind)

    # What an engine may do its own way.

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

    def _unreachable(self, error: ConnectError) -> LLMError:
        return EngineUnreachableError(f"{self._who} is not reachable: {error}.")

    # Requests.

    @property
    def _who(self) -> str:
        return f"{self.name} at {self.base_url}"

    async def _get(self, path: str) -> dict[str, Any]:
        return (await self._whole("GET", path, None, PROBE_SECONDS)).data

    async def _ok(self, path: str) -> None:
        """GET a path whose answer may be empty: status 200 is what counts."""
        await self._whole("GET", path, None, PROBE_SECONDS, empty=True)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return (await self._whole("POST", path, encode_body(body), None)).data

    async def _post_form(self, path: str, form: bytes, content_type: str) -> Answer:
        """POST a form; its answer is JSON, or a text where the form asks for one."""
        try:
            async with self._request("POST", path, form, content_type) as answer:
                raw = await answer.read(MAX_ANSWER_BYTES)
        except TransportError as error:
            raise self._translated(error, 0) from error
        kind = answer.headers.get("content-type", "")
        is_text = answer.status == 200 and kind.startswith("text/")
        return Answer(raw, {} if is_text else self._answer(path, answer.status, raw), kind)

    async def _whole(
        self, method: str, path: str, data: bytes | None, seconds: float | None, empty: bool = False
    ) -> Answer:
        """The whole answer, within `seconds`; None: only silence is bounded, by the timeout."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._request(method, path, data) as answer,
            ):
                raw = await answer.read(MAX_ANSWER_BYTES)
        except TimeoutError as error:
            raise self._translated(ReadTimeout("silence"), 0) from error
        except TransportError as error:
            raise self._translated(error, 0) from error
        if empty and answer.status == 200:
            return Answer(raw, {})
        return Answer(raw, self._answer(path, answer.status, raw))

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, data: bytes | None, content_type: str = JSON
    ) -> AsyncGenerator[Exchange, None]:
        """Send a request; entered once its answer's head is there.

        Raises TransportError; ConfigurationError for an invalid path.
        """
        if self._closed:
            raise EngineUnreachableError(
                f"{self._who} is not asked any more: this provider is closed."
            )
        with _settings():
            exchange = await self._http.open(method, path, data, content_type=content_type)
        async with exchange as answer:
            yield answer

    def _begun(self, path: str, chunk: bytes) -> None:
        """Raise what a stream's first event refuses: some look at a request after their 200."""
        if b'"error"' not in chunk:
            return
        chunk = self._redaction.hide(chunk)
        event = read_block(split_blocks(chunk)[0])
        if isinstance(event, dict) and event.get("error"):
            code = error_of(event).get("code")
            status = code if isinstance(code, int) else 500
            raise self._refusal(path, status, *read_error(status, chunk, event))

    def _translated(self, error: TransportError, count: int) -> LLMError:
        """Return this package's error for a connection's; `count`: bytes of the answer so far."""
        match error:
            case ConnectError():
                return self._unreachable(error)
            case ReadTimeout():
                return EngineTimeoutError(
                    f"{self._who} was silent for longer than allowed, "
                    f"after {count} bytes of its answer."
                )
            case InvalidResponse():
                return MalformedAnswer(f"{self._who} gave an unreadable answer: {error}.")
        return StreamInterruptedError(
            f"{self._who} broke the connection after {count} bytes of its answer: {error}."
        )

    def _answer(self, path: str, status: int, raw: bytes) -> dict[str, Any]:
        """Return the JSON object that a fully read answer holds, or raise why there is none."""
        answer = _json(raw)
        if status == 200 and isinstance(answer, dict) and not answer.get("error"):
            return answer
        raw = self._redaction.hide(raw)
        answer = _json(raw)
        if status != 200:
            raise self._refusal(path, status, *read_error(status, raw, answer))
        if not isinstance(answer, dict):
            raise MalformedAnswer(
                f"{self._who} answered 200 with what is not a JSON object: {decode(raw)[:80]!r}."
            )
        raise self._refusal(path, 200, *read_error(200, raw, answer))


@contextmanager
def _settings() -> Generator[None, None, None]:
    """Raise ConfigurationError for a setting that the HTTP client refuses."""
    try:
        yield
    except InvalidSetting as error:
        raise ConfigurationError(str(error)) from None


def _root(url: BaseURL) -> BaseURL:
    """The engine's root: people give OpenAI-style addresses, which end in /v1, as well."""
    return replace(url, prefix=url.prefix.removesuffix("/v1").rstrip("/"))


def _headers(api_key: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request, names in lower case; those given replace the others."""
    headers = {"user-agent": f"edge-llm/{__version__}"}
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigurationError(
                "The API key is invalid: it holds characters that no header can. "
                "Give printable ASCII."
            )
        headers["authorization"] = f"Bearer {api_key}"
    return {**headers, **given}


def _json(raw: bytes) -> object:
    """Return what `raw` holds as JSON; None where it holds none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
