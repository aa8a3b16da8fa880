"""llama.cpp's llama-server."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from llm_provider.errors import ContextFullError, EngineLoadingError, LLMError, Unsupported
from llm_provider.providers.base import Capacity, LLMProvider
from llm_provider.providers.request_fields import positive
from llm_provider.providers.routes import CHAT, RESPONSES
from llm_provider.providers.tool_choice import offer_chosen_tool

# An embedding or a score is computed of a whole input at once, in one micro-batch.
_TOO_LARGE = re.compile(
    r"input \((\d+) tokens\) is too large to process\..*\(current batch size: (\d+)\)"
)


class LlamaCpp(LLMProvider):
    """llama.cpp's llama-server: it loads as it starts, and /health is 503 until it has."""

    name = "llamacpp"
    usage_on_request = False  # its streams end with `timings`, asked or not
    shares_context = True

    async def health(self) -> None:
        try:
            await self._get("/health")
        except EngineLoadingError:
            return

    async def ready(self) -> None:
        await self._get("/health")

    async def capacity(self) -> Capacity:
        props = await self._get("/props")
        settings = props.get("default_generation_settings")
        size = settings.get("n_ctx") if isinstance(settings, dict) else None
        modalities = props.get("modalities")
        vision = isinstance(modalities, dict) and modalities.get("vision") is True
        return Capacity(positive(size), positive(props.get("total_slots")), vision=vision)

    async def _body(self, path: str, body: Mapping[str, Any]) -> MutableMapping[str, Any]:
        mapped = await super()._body(path, body)
        if path in (CHAT, RESPONSES) and offer_chosen_tool(mapped):
            mapped["tool_choice"] = "required"
        return mapped

    def _refusal(self, path: str, status: int, words: str, error: dict[str, Any]) -> LLMError:
        # 503 is also its answer to some requests it has no place for; only this one has not begun.
        if status == 503 and "loading" in words.lower():
            return EngineLoadingError(f"{self._who} is loading its model: {words}")
        if status == 500 and "context size has been exceeded" in words.lower():
            # A prompt that is too long by itself gets 400, and other words.
            return ContextFullError(
                f"{self._who} had no room for it beside others: {words}",
                status=status,
                words=words,
                error=error,
            )
        if status == 500 and (sizes := _TOO_LARGE.search(words)):
            # The request's fault, whatever the status says.
            tokens, most = map(int, sizes.groups())
            described = {"code": 400, "type": "exceed_context_size_error"}
            error = error | described | {"n_prompt_tokens": tokens, "n_ctx": most}
            return super()._refusal(path, 400, words, error)
        if status == 404:  # never for a model: it answers to any name
            return Unsupported(f"{self.name} has no {path} here: {words}")
        return super()._refusal(path, status, words, error)
