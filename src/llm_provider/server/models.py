"""The names of the one model that the engine serves."""

from __future__ import annotations

import time
from typing import Any

from llm_provider.providers.settings import Task
from llm_provider.server.api_errors import APIError
from llm_provider.server.client_apis.model_list import model_entry
from llm_provider.server.engine_file import EngineFile
from llm_provider.server.engine_state import EngineState
from llm_provider.server.translations.ollama_request import bare_name

DEFAULT_MODEL = "default"
"""The name by which any client may ask for the model that this host serves."""


class Models:
    """The model's name, and `aliases` of it, for the engine of the moment."""

    def __init__(
        self, engine: EngineState, engine_file: EngineFile, aliases: tuple[str, ...]
    ) -> None:
        self._engine = engine
        self._engine_file = engine_file
        self._aliases = aliases
        self._started = int(time.time())

    @property
    def names(self) -> list[str]:
        """The names by which the model may be asked for, its own first."""
        return list(dict.fromkeys((self._engine.provider.model, *self._aliases)))

    @property
    def context_size(self) -> int | None:
        """Tokens of one conversation: what the engine tells, else what was asked for."""
        return self._engine.capacity.context_size or self._engine_file.settings.context_size

    @property
    def task(self) -> Task:
        """What the engine was started for."""
        return self._engine_file.settings.task

    def check(self, name: str | None) -> None:
        """Raise APIError 404 where `name` is none of the model's; none at all may be left out."""
        served = self.names
        # Ollama's clients add the tag that a name without one stands for.
        if name and name != DEFAULT_MODEL and bare_name(name) not in map(bare_name, served):
            raise APIError(
                404,
                f"The model {name!r} is not served here; served: {', '.join(served)}.",
                param="model",
                code="model_not_found",
            )

    def entry(self, name: str) -> dict[str, Any]:
        """Return what /v1/models tells of a name."""
        return model_entry(name, self._started, self.context_size)
