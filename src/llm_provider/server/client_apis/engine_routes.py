"""Routes that engines have beside the clients' APIs: ranks, tokens, infill."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from llm_provider.errors import MalformedAnswer
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.server.client_apis.client_translator import decode_fields
from llm_provider.server.client_apis.tokenize import (
    detokenize_answer,
    detokenize_request,
    tokenize_answer,
    tokenize_request,
)
from llm_provider.server.fields import FieldError, Fields
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translator import Asked, Translator


class _TokensTranslator(Translator):
    """A request in the format of either engine, and its answer in that of both."""

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        self._client = decode_fields(asked.fields)
        self.path = asked.route.feature.paths[provider.name]
        self.body = self.translate(self._client, provider.name)
        self.headers = []

    @abstractmethod
    def translate(self, body: Mapping[str, Any], engine: str) -> dict[str, Any]:
        """Return the engine's request for a client's. Raises TranslationError."""

    @abstractmethod
    def translate_answer(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the client's answer for the engine's. Raises TranslationError."""

    def whole(self, answer: Answer) -> bytes:
        try:
            return json.dumps(self.translate_answer(answer.data)).encode()
        except TranslationError as error:
            raise MalformedAnswer(f"The engine answered {self.path} otherwise: {error}") from error


class TokenizeTranslator(_TokensTranslator):
    """A request to /tokenize."""

    def translate(self, body: Mapping[str, Any], engine: str) -> dict[str, Any]:
        return tokenize_request(body, engine)

    def translate_answer(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return tokenize_answer(answer, self._client)


class DetokenizeTranslator(_TokensTranslator):
    """A request to /detokenize."""

    def translate(self, body: Mapping[str, Any], engine: str) -> dict[str, Any]:
        return detokenize_request(body)

    def translate_answer(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return detokenize_answer(answer)


def check_tokenize(fields: Fields) -> None:
    """Raise TranslationError where no engine could tokenize what a body asks for."""
    tokenize_request(decode_fields(fields), "llamacpp")


def check_detokenize(fields: Fields) -> None:
    """Raise TranslationError where a body has no list of tokens."""
    detokenize_request(decode_fields(fields))


def check_query(fields: Fields) -> None:
    """Raise FieldError where a request to rank documents has no query."""
    fields.require_text("query")


def check_infill(fields: Fields) -> None:
    """Raise FieldError where a text with a gap has not both of its parts, which may be empty."""
    for name in ("input_prefix", "input_suffix"):
        if not fields.is_text(name):
            raise FieldError(f"'{name}' must be a text.", name)
    if fields.stream:  # the engine's streams have an end of their own
        raise FieldError("'stream' is not supported at /infill. Leave it out.", "stream")


def require_list(fields: Fields, name: str) -> None:
    """Raise FieldError where `name` is no list with something in it."""
    value = fields.raw(name)
    if value is None or not bytes(value[:1]) == b"[" or not bytes(value[1:]).strip(b" \t\r\n]"):
        raise FieldError(f"'{name}' must be a list that is not empty.", name)
