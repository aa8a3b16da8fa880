"""vLLM."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from llm_provider.errors import EngineLoadingError, LLMError
from llm_provider.http.errors import ConnectError
from llm_provider.providers.base import Capacity, LLMProvider
from llm_provider.providers.request_fields import join_text_parts, positive
from llm_provider.providers.routes import CHAT


class VLLM(LLMProvider):
    """vLLM: it opens its port only once it is ready, so a refused connection means loading."""

    name = "vllm"

    async def _body(self, path: str, body: Mapping[str, Any]) -> MutableMapping[str, Any]:
        mapped = await super()._body(path, body)
        if path == CHAT and isinstance(messages := mapped.get("messages"), list):
            joined = [join_text_parts(message) for message in messages]
            if joined != messages:
                mapped["messages"] = joined
        return mapped

    async def health(self) -> None:
        await self.ready()

    async def ready(self) -> None:
        await self._ok("/health")

    async def capacity(self) -> Capacity:
        for entry in await self._listed():
            if entry["id"] == self.model:
                return Capacity(positive(entry.get("max_model_len")))
        return Capacity()

    def _unreachable(self, error: ConnectError) -> LLMError:
        if error.refused:
            return EngineLoadingError(
                f"{self._who} has not opened its port: it is loading its model."
            )
        return super()._unreachable(error)
