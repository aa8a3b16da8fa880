"""Ollama."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from llm_provider.errors import (
    EngineLoadingError,
    EngineRefusedError,
    MalformedAnswer,
    StreamInterruptedError,
)
from llm_provider.providers.base import Capacity, LLMProvider, OnDropped
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.request_fields import join_text_parts, positive
from llm_provider.providers.routes import CHAT, COMPLETIONS, RESPONSES
from llm_provider.providers.tool_choice import offer_chosen_tool
from llm_provider.providers.vram import gpu_share


class Ollama(LLMProvider):
    """Ollama: it answers at once, and loads a model when asked to, or at the first request.

    What of OpenAI's bodies its /v1 routes do not read (see `parameters.ollama`) is rewritten where
    they have other words for it.
    """

    name = "ollama"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._context_size: int | None = None

    async def health(self) -> None:
        await self._get("/api/version")

    async def ready(self) -> None:
        await self._loaded()

    async def capacity(self) -> Capacity:
        entry = await self._loaded()
        share = gpu_share(entry.get("size"), entry.get("size_vram"), self.base_url)
        return Capacity(positive(entry.get("context_length")), None, share)

    async def send(
        self, path: str, body: Mapping[str, Any], *, on_dropped: OnDropped | None = None
    ) -> Answer:
        answer = await super().send(path, body, on_dropped=on_dropped)
        choices = answer.data.get("choices")
        if isinstance(choices, list) and any(
            isinstance(choice, dict) and choice.get("finish_reason") is None for choice in choices
        ):
            # What it says when its runner has died half-way through, with status 200.
            raise StreamInterruptedError(
                f"{self._who} gave an answer that breaks off: no finish_reason."
            )
        return answer

    async def load(self) -> None:
        # A request without a prompt loads and no more; -1 keeps the model until the engine stops.
        body = {"model": self.model, "keep_alive": -1}
        try:
            await self._post("/api/generate", body | {"stream": False})
        except EngineRefusedError as error:
            if "does not support generate" not in error.words:
                raise
            await self._post("/api/embed", body | {"input": []})  # a model for embeddings

    async def _body(self, path: str, body: Mapping[str, Any]) -> MutableMapping[str, Any]:
        mapped = await super()._body(path, body)
        if path in (CHAT, RESPONSES):
            self._choose_tools(mapped)
        if path not in (CHAT, COMPLETIONS):
            return mapped
        if (limit := mapped.pop("max_completion_tokens", None)) is not None:
            mapped["max_tokens"] = limit
        if isinstance(messages := mapped.get("messages"), list):
            joined = [join_text_parts(message) for message in messages]
            if joined != messages:
                mapped["messages"] = joined
        # Last: what cannot be done is said without asking the engine.
        if mapped.get("max_tokens") is None and (size := await self._context()):
            # It would shift its context and go on, to ten times that; others end there.
            mapped["max_tokens"] = size
        return mapped

    @staticmethod
    def _choose_tools(body: MutableMapping[str, Any]) -> None:
        """Offer the tools that `tool_choice` allows: it is not read itself."""
        if "tool_choice" not in body:
            return
        if not offer_chosen_tool(body) and body["tool_choice"] == "none" and "tools" in body:
            del body["tools"]
        del body["tool_choice"]

    async def _context(self) -> int | None:
        """The context of a conversation, asked for once; the model is loaded to know it."""
        if self._context_size is None:
            try:
                await self._loaded()
            except EngineLoadingError:
                await self.load()
                await self._loaded()
        return self._context_size

    async def _loaded(self) -> dict[str, Any]:
        """Return the model's entry of /api/ps. Raises EngineLoadingError where it has none."""
        answer = await self._get("/api/ps")
        try:
            loaded = {_tagged(entry["name"]): dict(entry) for entry in answer["models"] or []}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedAnswer(
                f"{self._who} answered /api/ps without a list of models."
            ) from error
        if _tagged(self.model) not in loaded:
            raise EngineLoadingError(
                f"{self._who} has not loaded {self.model} yet; "
                f"loaded: {', '.join(sorted(loaded)) or 'nothing'}."
            )
        entry = loaded[_tagged(self.model)]
        self._context_size = positive(entry.get("context_length"))
        return entry


def _tagged(model: str) -> str:
    """Ollama's full name of a model: one without a tag is the latest."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"
