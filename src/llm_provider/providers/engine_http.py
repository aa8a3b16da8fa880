"""Requests to an engine, and what its failures are as this package's errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

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
from llm_provider.http.client import Exchange, HTTPClient
from llm_provider.http.errors import ConnectError, InvalidResponse, ReadTimeout, TransportError
from llm_provider.providers.error_body import decode, error_of, read_error
from llm_provider.providers.settings import DEFAULT_BASE_URL

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
    content_type: str = "application/json"


class EngineHTTP:
    """The connection to one engine; `LLMProvider` is what callers use."""

    name: ClassVar[str]

    def __init__(self, base_url: str, api_key: str | None, timeout: float) -> None:
        self.base_url = _root(base_url)
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": f"edge-llm/{__version__}",
        }
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise ConfigurationError("The engine's API key holds characters no header can.")
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = HTTPClient(self.base_url, headers, timeout)
        self._closed = False

    def _close(self) -> None:
        self._closed = True
        self._http.close()

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
        return (await self._whole("POST", path, encode(body), None)).data

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
        self, method: str, path: str, data: bytes | None, kind: str = "application/json"
    ) -> AsyncGenerator[Exchange, None]:
        """Send a request; entered once its answer's head is there. Raises TransportError."""
        if self._closed:
            raise EngineUnreachableError(
                f"{self._who} is not asked any more: this provider is closed."
            )
        answer = await self._http.open(method, path, data, kind)
        try:
            yield answer
        finally:
            answer.close()

    def _begun(self, path: str, chunk: bytes) -> None:
        """Raise what a stream's first event refuses: some look at a request after their 200."""
        event = read_block(split_blocks(chunk)[0]) if b'"error"' in chunk else None
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
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):  # told apart below, by the status
            answer = None
        if status != 200:
            raise self._refusal(path, status, *read_error(status, raw, answer))
        if not isinstance(answer, dict):
            raise MalformedAnswer(
                f"{self._who} answered 200 with what is not a JSON object: {decode(raw)[:80]!r}."
            )
        if answer.get("error"):
            raise self._refusal(path, 200, *read_error(200, raw, answer))
        return answer


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


def encode(body: dict[str, Any]) -> bytes:
    """`body` on the wire; ASCII escapes carry any text, lone surrogates included."""
    return json.dumps(body, separators=(",", ":")).encode()
