"""Requests and answers on their way between a client's API and an engine's routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.routes import CHAT
from llm_provider.server.fields import Fields
from llm_provider.server.public_text import without_addresses_in_errors
from llm_provider.server.token_estimate import IMAGE_TOKENS
from llm_provider.server.usage import UsageFilter

if TYPE_CHECKING:
    from llm_provider.server.route import Route

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Asked:
    """A client's request: its body has been read, and its route's checks passed.

    `headers` are the request's, as ASGI has them; `image_tokens` is what an image counts as.
    """

    route: Route
    fields: Fields
    stream: bool
    request_id: str
    headers: Headers
    image_tokens: int = IMAGE_TOKENS


class Translator:
    """Translates one request for one engine, and its answer for the client; this one leaves both as
    they are.

    A new one is made each time that the request is put to an engine. What it raises is answered
    with the route's errors: TranslationError and FieldError as 400, APIError as itself. `path` and
    `body` are what the engine is asked; `headers` are added to the answer's. `dropped` are the
    parameters that the engine does not get: those without a translation, and those that the
    provider reports to `on_dropped`; the answer's header names them. Then either `whole` is
    called once, for what `send` returned, or `feed` for each piece of the engine's stream, cut
    anywhere, and `rest` at its end. A stream that began while the request waited has none of these
    headers.
    """

    dropped: tuple[str, ...] = ()

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        self.path = asked.route.feature.paths[provider.name]
        self.body: Mapping[str, Any] = asked.fields.body()
        self.headers: Headers = []
        self._filter: UsageFilter | None = None
        if asked.stream:
            self._ask_for_usage(asked.fields, provider)

    async def send(self, provider: LLMProvider) -> Answer:
        """Ask the engine for a whole answer. Raises LLMError."""
        return await provider.send(self.path, self.body, on_dropped=self.on_dropped)

    def on_dropped(self, names: tuple[str, ...]) -> None:
        """Take the parameters that the engine ignores."""
        self.dropped += names

    def whole(self, answer: Answer) -> bytes:
        """Return the body of a whole answer, of the answer's type."""
        return answer.raw

    def feed(self, chunk: bytes) -> bytes:
        """Return what the client gets for the next piece of a stream; it may be nothing."""
        events = chunk if self._filter is None else self._filter.feed(chunk)
        return without_addresses_in_errors(events) if b'"error"' in events else events

    def rest(self) -> bytes:
        """Return what the client gets at the end of a stream that came to its end."""
        return b"" if self._filter is None else self._filter.rest()

    def _ask_for_usage(self, fields: Fields, provider: LLMProvider) -> None:
        """Ask for the number of tokens too, where it can be taken out of the stream again."""
        options = fields.stream_options
        if (
            not provider.usage_on_request
            or self.path != CHAT
            or options is None  # the engine's to refuse
            or options.get("include_usage")
        ):
            return
        self._filter = UsageFilter()
        body = fields.body()
        body["stream_options"] = {**options, "include_usage": True}
        self.body = body
