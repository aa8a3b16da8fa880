"""The route table: what each route that the engine answers needs.

A route is added by adding a `Route` to `ROUTES`; FastAPI's routes and the OpenAPI document follow
from the table. What each engine offers is in `llm_provider.providers.support`. A client's API that
engines do not speak has a `Translator` (see there) for requests and answers, and an `ErrorFormat`.
Routes that the chat API answers itself (GET, mostly) are in `handlers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from llm_provider.providers import support
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.client_apis import anthropic, engine_routes, ollama, transcription
from llm_provider.server.fields import Fields
from llm_provider.server.formats import ANTHROPIC, JSON_LINES, OLLAMA
from llm_provider.server.message import MessageTranslator, check_system
from llm_provider.server.route import Field, Route

MESSAGE = "/api/chat"

_STRING = {"type": "string"}


def _text_or_list(name: str) -> Field:
    schema = {"anyOf": [_STRING, {"type": "array", "minItems": 1}]}
    return Field(name, schema, Fields.require_text_or_list)


def _list(name: str) -> Field:
    return Field(name, {"type": "array", "minItems": 1}, engine_routes.require_list)


def _text(name: str) -> Field:
    return Field(name, {"type": "string", "minLength": 1}, Fields.require_text)


def _unchecked(name: str, schema: Mapping[str, object]) -> Field:
    """A field that the route's own check looks at."""
    return Field(name, schema, lambda fields, name: None)


MESSAGES = Field(
    "messages",
    {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": ["role"], "properties": {"role": _STRING}},
    },
    Fields.require_objects,
)

_OPENAI = (
    Route(CHAT, support.CHATTING, MESSAGES),
    Route(COMPLETIONS, support.COMPLETING, _text_or_list("prompt"), batch=True),
    Route(RESPONSES, support.RESPONDING, _text_or_list("input")),
    Route(EMBEDDINGS, support.EMBEDDING, _text_or_list("input"), streams=False, batch=True),
    Route(
        "/v1/audio/transcriptions",
        support.TRANSCRIBING,
        _unchecked("file", {"type": "string", "format": "binary"}),
        streams=False,
        read=transcription.read_form,
        translator=transcription.TranscriptionTranslator,
    ),
)
_ANTHROPIC = (
    Route(
        anthropic.MESSAGES,
        support.CHATTING,
        MESSAGES,
        further={"max_tokens": {"type": "integer", "minimum": 1}},
        check=anthropic.check_messages,
        translator=anthropic.MessagesTranslator,
        errors=ANTHROPIC,
    ),
    Route(
        anthropic.COUNT_TOKENS,
        support.COUNTING_TOKENS,
        MESSAGES,
        streams=False,
        takes_slot=False,
        check=anthropic.check_count,
        translator=anthropic.CountTokensTranslator,
        errors=ANTHROPIC,
    ),
)
_MESSAGE = Route(
    MESSAGE,
    support.CHATTING,
    _text("message"),
    further={"system": _STRING},
    check=check_system,
    translator=MessageTranslator,
)
_OLLAMA = (
    Route(
        ollama.CHAT,
        support.CHATTING,
        _unchecked("messages", {"type": "array", "items": {"type": "object"}}),
        streams_by_default=True,
        check=ollama.check_chat,
        most_tokens=ollama.most_tokens,
        own_answer=ollama.loaded_for_chat,
        alternative=_MESSAGE,
        translator=ollama.ChatTranslator,
        errors=OLLAMA,
        stream=JSON_LINES,
    ),
    Route(
        ollama.GENERATE,
        support.CHATTING,
        _unchecked("model", _STRING),
        streams_by_default=True,
        further={"prompt": _STRING},
        check=ollama.check_generate,
        most_tokens=ollama.most_tokens,
        own_answer=ollama.loaded_for_text,
        translator=ollama.GenerateTranslator,
        errors=OLLAMA,
        stream=JSON_LINES,
    ),
    Route(
        ollama.EMBED,
        support.EMBEDDING,
        _text_or_list("input"),
        streams=False,
        batch=True,
        check=ollama.check_embed,
        translator=ollama.EmbedTranslator,
        errors=OLLAMA,
    ),
    Route(
        ollama.EMBEDDINGS,
        support.EMBEDDING,
        _text("prompt"),
        streams=False,
        check=ollama.check_embeddings,
        translator=ollama.EmbeddingsTranslator,
        errors=OLLAMA,
    ),
)
_RERANK = Route(
    "/v1/rerank",
    support.RERANKING,
    _list("documents"),
    streams=False,
    batch=True,
    further={"query": _STRING},
    check=engine_routes.check_query,
)
_ENGINES_OWN = (
    _RERANK,
    replace(_RERANK, path="/rerank"),
    Route(
        "/tokenize",
        support.TOKENIZING,
        _unchecked("content", _STRING),
        streams=False,
        takes_slot=False,
        check=engine_routes.check_tokenize,
        translator=engine_routes.TokenizeTranslator,
    ),
    Route(
        "/detokenize",
        support.DETOKENIZING,
        _unchecked("tokens", {"type": "array"}),
        streams=False,
        takes_slot=False,
        check=engine_routes.check_detokenize,
        translator=engine_routes.DetokenizeTranslator,
    ),
    Route(
        "/apply-template",
        support.APPLYING_TEMPLATE,
        MESSAGES,
        streams=False,
        takes_slot=False,
    ),
    Route(
        "/infill",
        support.INFILLING,
        _unchecked("input_prefix", _STRING),
        streams=False,
        further={"input_suffix": _STRING},
        check=engine_routes.check_infill,
    ),
)


def _table(routes: Iterable[Route]) -> dict[str, Route]:
    return {route.path: route for route in routes}


ROUTES = _table((*_OPENAI, *_ANTHROPIC, *_OLLAMA, *_ENGINES_OWN))
"""The routes, by their paths."""
