"""A host's chat API as a client sees it."""

from __future__ import annotations

from typing import Any

from llm_provider.errors import EngineLoadingError, LLMError
from llm_provider.providers.base import Capacity, LLMProvider


class ChatAPIClient(LLMProvider):
    """A host's chat API: it speaks as engines do, so it is used as one."""

    name = "the chat API"

    async def look(self, path: str) -> dict[str, Any]:
        """Return what GET `path` answers with status 200; raises LLMError for anything else."""
        return await self._get(path)

    async def health(self) -> None:
        await self.look("/health")

    async def ready(self) -> None:
        await self.look("/ready")

    async def capacity(self) -> Capacity:
        report = await self.look("/ready")
        return Capacity(report.get("context_size"), report.get("parallel"), report.get("gpu_share"))

    def _refusal(self, path: str, status: int, words: str, error: dict[str, Any]) -> LLMError:
        if error.get("code") in ("engine_not_ready", "stopping"):
            return EngineLoadingError(f"{self._who} is not ready: {words}")
        return super()._refusal(path, status, words, error)
