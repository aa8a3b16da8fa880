"""Ollama's routes about models, which the chat API answers itself: nothing is downloaded here."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from llm_provider.server.body import declared_size, read_body
from llm_provider.server.body_budget import BodyBudget
from llm_provider.server.client_apis.client_translator import decode_fields
from llm_provider.server.client_apis.model_list import ollama_models
from llm_provider.server.engine_state import EngineState
from llm_provider.server.fields import Fields
from llm_provider.server.formats import OLLAMA
from llm_provider.server.handlers import OwnRoute
from llm_provider.server.models import Models
from llm_provider.server.refusal import BODY_READ
from llm_provider.server.translations.ollama_models import (
    ModelInfo,
    running,
    show,
    shown_name,
    tags,
    version,
)

_MOST_BYTES = 64 * 1024
_SECONDS = 15.0


class OllamaInfo:
    """The handlers: which models there are, which are loaded, what is known of one."""

    def __init__(self, engine: EngineState, models: Models) -> None:
        self._engine = engine
        self._models = models

    @property
    def routes(self) -> tuple[OwnRoute, ...]:
        """The routes."""
        return (
            OwnRoute(
                "/api/tags", self.tags, "The served model under all its names.", errors=OLLAMA
            ),
            OwnRoute(
                "/api/ps", self.running, "The same, once the engine has loaded it.", errors=OLLAMA
            ),
            OwnRoute(
                "/api/version",
                self.version,
                "The version of Ollama whose API this is.",
                errors=OLLAMA,
            ),
            OwnRoute(
                "/api/show",
                self.show,
                "What is known of the model.",
                (400, 401, 404, 408, 413, 503),
                method="POST",
                errors=OLLAMA,
            ),
        )

    async def tags(self) -> dict[str, Any]:
        return tags(self._infos(self._models.names))

    async def running(self) -> dict[str, Any]:
        return running(self._infos(self._models.names) if self._engine.ready else [])

    async def version(self) -> dict[str, str]:
        return version()

    async def show(self, request: Request) -> dict[str, Any]:
        with await read_body(
            request.receive,
            BodyBudget(_MOST_BYTES),
            key=None,
            most=_MOST_BYTES,
            seconds=_SECONDS,
            declared=declared_size(request.scope["headers"]),
        ) as body:
            setattr(request.state, BODY_READ, True)
            name = shown_name(decode_fields(Fields.parse(body.data)))
        self._models.check(name)
        return show(*self._infos([name]))

    def _infos(self, names: list[str]) -> list[ModelInfo]:
        models = self._models
        vision = self._engine.capacity.vision
        return ollama_models(names, models.task, models.context_size, vision=vision)
