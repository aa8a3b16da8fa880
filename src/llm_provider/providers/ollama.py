"""Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.errors import (
    EngineLoadingError,
    EngineRefusedError,
    MalformedAnswer,
    StreamInterruptedError,
)
from llm_provider.providers.base import Capacity, LLMProvider
from llm_provider.providers.engine_http import Answer
from llm_provider.providers.request_fields import join_text_parts, positive
from llm_provider.providers.routes import CHAT, COMPLETIONS
from llm_provider.providers.vram import gpu_share

DROPPED = {
    CHAT: (
        *("n", "logit_bias", "parallel_tool_calls", "functions", "function_call", "modalities"),
        *("prediction", "audio", "top_k", "min_p", "repeat_penalty", "typical_p", "mirostat"),
        *("ignore_eos", "grammar"),
    ),
    COMPLETIONS: ("n", "best_of", "echo", "logit_bias", "logprobs", "top_k", "min_p", "grammar"),
}
"""Fields that its routes drop without a word."""


class Ollama(LLMProvider):
    """Ollama: it answers at once, and loads a model when told to, or at the first request.

    What of OpenAI's bodies its /v1 routes do not read (as of 0.34: openai/openai.go) is mapped to
    what they do, or refused: it would be dropped without a word.
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

    async def send(self, path: str, body: Mapping[str, Any]) -> Answer:
        answer = await super().send(path, body)
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
        request = {"model": self.model, "keep_alive": -1}
        try:
            await self._post("/api/generate", {**request, "stream": False})
        except EngineRefusedError as error:
            if "does not support generate" not in error.words:
                raise
            await self._post("/api/embed", {**request, "input": []})

    async def _body(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path not in (CHAT, COMPLETIONS):
            return dict(body)
        self._refuse(body, DROPPED[path])
        mapped = dict(body)
        if (limit := mapped.pop("max_completion_tokens", None)) is not None:
            mapped["max_tokens"] = limit
        if mapped.get("top_logprobs") is not None and not mapped.get("logprobs"):
            raise self._unsupported("top_logprobs", "gives top_logprobs only beside logprobs")
        choice = mapped.pop("tool_choice", None)
        if choice == "none":
            mapped.pop("tools", None)
        elif choice not in (None, "auto"):
            raise self._unsupported("tool_choice", "cannot be made to call a tool")
        if isinstance(messages := mapped.get("messages"), list):
            mapped["messages"] = [join_text_parts(message) for message in messages]
        # Last: what cannot be done is said without asking the engine.
        if mapped.get("max_tokens") is None and (size := await self._context()):
            # It would shift its context and go on, to ten times that; others end there.
            mapped["max_tokens"] = size
        return mapped

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
