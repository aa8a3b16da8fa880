"""The names of the one model that the engine serves."""

from __future__ import annotations

import time

from llm_provider.server.api_errors import APIError
from llm_provider.server.engine_state import EngineState

DEFAULT_MODEL = "default"
"""The name by which any client may ask for the model that this host serves."""


class Models:
    """The model's name, and `aliases` of it, for the engine of the moment."""

    def __init__(self, engine: EngineState, aliases: tuple[str, ...]) -> None:
        self._engine = engine
        self._aliases = aliases
        self._started = int(time.time())

    @property
    def names(self) -> list[str]:
        """The names by which the model may be asked for, its own first."""
        return list(dict.fromkeys((self._engine.provider.model, *self._aliases)))

    def check(self, name: str | None) -> None:
        """Raise APIError 404 where `name` is none of the model's; none at all may be left out."""
        served = self.names
        if name and name != DEFAULT_MODEL and name not in served:
            raise APIError(
                404,
                f"The model {name!r} is not served here; served: {', '.join(served)}.",
                param="model",
                code="model_not_found",
            )

    def entry(self, name: str) -> dict[str, object]:
        """Return what /v1/models tells of a name."""
        return {"id": name, "object": "model", "created": self._started, "owned_by": "edge-llm"}
