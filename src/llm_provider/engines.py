"""The three engines, each in what it does differently."""

from __future__ import annotations

from typing import Any

import httpx

from llm_provider.base import LLMProvider, is_refused
from llm_provider.errors import LLMError, Loading, MalformedAnswer


class LlamaCpp(LLMProvider):
    """llama.cpp's llama-server: it loads as it starts, and /health is 503 until it has."""

    name = "llamacpp"

    async def health(self) -> None:
        response = await self._get("/health")
        if response.status_code != 503:
            self._answer(response)

    async def ready(self) -> None:
        self._answer(await self._get("/health"))

    def _refusal(self, status: int, words: str, error: dict[str, Any]) -> LLMError:
        # 503 is also its answer to some requests it has no place for; only this one has not begun.
        if status == 503 and "loading" in words.lower():
            return Loading(f"{self._who} is loading its model: {words}")
        return super()._refusal(status, words, error)


class Ollama(LLMProvider):
    """Ollama: it answers at once, and loads a model when told to, or at the first request."""

    name = "ollama"

    async def health(self) -> None:
        self._answer(await self._get("/api/version"))

    async def ready(self) -> None:
        answer = self._answer(await self._get("/api/ps"))
        try:
            loaded = {_tagged(entry["name"]) for entry in answer["models"] or []}
        except (KeyError, TypeError, AttributeError) as error:
            raise MalformedAnswer(
                f"{self._who} answered /api/ps without a list of models."
            ) from error
        if _tagged(self.model) not in loaded:
            raise Loading(
                f"{self._who} has not loaded {self.model} yet; "
                f"loaded: {', '.join(sorted(loaded)) or 'nothing'}."
            )

    async def load(self) -> None:
        # A request without a prompt loads and no more; -1 keeps the model until the engine stops.
        body = {"model": self.model, "keep_alive": -1, "stream": False}
        self._answer(await self._post("/api/generate", body))


class VLLM(LLMProvider):
    """vLLM: it opens its port only once it is ready, so a refused connection means loading."""

    name = "vllm"

    async def health(self) -> None:
        await self.ready()

    async def ready(self) -> None:
        response = await self._get("/health")  # 200 with an empty body
        if response.status_code != 200:
            self._answer(response)

    def _unreachable(self, error: httpx.TransportError) -> LLMError:
        if is_refused(error):
            return Loading(f"{self._who} has not opened its port: it is loading its model.")
        return super()._unreachable(error)


def _tagged(model: str) -> str:
    """Ollama's full name of a model: one without a tag is the latest."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


PROVIDERS: dict[str, type[LLMProvider]] = {
    provider.name: provider for provider in (LlamaCpp, Ollama, VLLM)
}
