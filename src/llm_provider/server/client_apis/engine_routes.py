"""Routes that engines have beside the clients' APIs: ranks, tokens, infill."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from llm_provider.errors import MalformedAnswer
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.server.client_apis.tokenize import (
    detokenize_answer,
    detokenize_request,
    tokenize_answer,
    tokenize_request,
)
from llm_provider.server.client_apis.translator import decode_fields
from llm_provider.server.fields import FieldError, Fields
from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translator import Asked, Translator

_Body = Mapping[str, Any]


class _TokensTranslator(Translator):
    """A request in the format of either engine, and its answer in that of both."""

    request: ClassVar[Callable[[_Body, str], dict[str, Any]]]
    answer: ClassVar[Callable[[_Body, _Body], dict[str, Any]]]

    def __init__(self, asked: Asked, provider: LLMProvider) -> None:
        self._client = decode_fields(asked.fields)
        self.path = asked.route.feature.paths[provider.name]
        self.body = type(self).request(self._client, provider.name)
        self.headers = []

    def whole(self, answer: Answer) -> bytes:
        try:
            return json.dumps(type(self).answer(answer.data, self._client)).encode()
        except TranslationError as error:
            raise MalformedAnswer(f"The engine answered {self.path} otherwise: {error}") from error


class TokenizeTranslator(_TokensTranslator):
    """A request to /tokenize."""

    request = staticmethod(tokenize_request)
    answer = staticmethod(tokenize_answer)


class DetokenizeTranslator(_TokensTranslator):
    """A request to /detokenize."""

    request = staticmethod(detokenize_request)
    answer = staticmethod(detokenize_answer)


def check_tokenize(fields: Fields) -> None:
    """Raise TranslationError where no engine could tokenize what a body asks for."""
    tokenize_request(decode_fields(fields), "llamacpp")


def check_detokenize(fields: Fields) -> None:
    """Raise TranslationError where a body has no list of tokens."""
    detokenize_request(decode_fields(fields), "llamacpp")


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
