"""The engine's own metrics, passed on to whoever has a key: the engine has no other way in."""

from __future__ import annotations

import asyncio

from fastapi.responses import Response

from llm_provider.providers.engine_http import Answer
from llm_provider.providers.support import METRICS
from llm_provider.server.engine_state import EngineState
from llm_provider.server.models import Models

MOST_BYTES = 2 * 1024 * 1024
"""vLLM has the most: some 200 KiB."""
SECONDS = 8.0
"""Less than the 10 seconds that Prometheus waits by default, so that it learns the reason."""


class EngineMetrics:
    """The handler. The engine is asked once at a time, however many ask: it answers between two
    steps of its work.
    """

    def __init__(self, engine: EngineState, models: Models) -> None:
        self._engine = engine
        self._models = models
        self._asking: asyncio.Task[Answer] | None = None

    async def metrics(self) -> Response:
        """The engine's own metrics for Prometheus, as it writes them."""
        # Shielded: whoever leaves does not end the question of the others.
        answer = await asyncio.shield(self._ask())
        return Response(answer.raw, headers={"Content-Type": answer.content_type})

    def _ask(self) -> asyncio.Task[Answer]:
        """The question that is being asked, or a new one."""
        provider = self._engine.provider
        path = METRICS.path(provider.name, self._models.task)
        if self._asking is None:
            task = asyncio.create_task(provider.read_text(path, MOST_BYTES, SECONDS))
            task.add_done_callback(self._asked)
            self._asking = task
        return self._asking

    def _asked(self, task: asyncio.Task[Answer]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # all who asked may have left
