"""The three engines, each in what it does differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_provider.base import CHAT, COMPLETIONS, Answer, Capacity, LLMProvider
from llm_provider.errors import (
    ContextFullError,
    EngineLoadingError,
    LLMError,
    MalformedAnswer,
    StreamInterruptedError,
    Unsupported,
)
from llm_provider.vram import gpu_share
from llm_provider.wire import Unreachable


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
        return Capacity(_count(size), _count(props.get("total_slots")))

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
        if status == 404:  # never for a model: it answers to any name
            return Unsupported(f"{self.name} has no {path} here: {words}")
        return super()._refusal(path, status, words, error)


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
        return Capacity(_count(entry.get("context_length")), None, share)

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
        await self._post("/api/generate", {"model": self.model, "keep_alive": -1, "stream": False})

    async def _body(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path not in (CHAT, COMPLETIONS):
            return dict(body)
        self._refuse(body, _OLLAMA_DROPS[path])
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
            mapped["messages"] = [_joined(message) for message in messages]
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
        self._context_size = _count(entry.get("context_length"))
        return entry


class VLLM(LLMProvider):
    """vLLM: it opens its port only once it is ready, so a refused connection means loading."""

    name = "vllm"

    async def _body(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path not in (CHAT, COMPLETIONS):
            return dict(body)
        self._refuse(body, _VLLM_DROPS[path])
        mapped = dict(body)
        if isinstance(messages := mapped.get("messages"), list):
            mapped["messages"] = [_joined(message) for message in messages]
        return mapped

    async def health(self) -> None:
        await self.ready()

    async def ready(self) -> None:
        await self._ok("/health")

    async def capacity(self) -> Capacity:
        for entry in await self._listed():
            if entry["id"] == self.model:
                return Capacity(_count(entry.get("max_model_len")))
        return Capacity()

    def _unreachable(self, error: Unreachable) -> LLMError:
        if error.refused:
            return EngineLoadingError(
                f"{self._who} has not opened its port: it is loading its model."
            )
        return super()._unreachable(error)


_OLLAMA_DROPS = {
    CHAT: (
        *("n", "logit_bias", "parallel_tool_calls", "functions", "function_call", "modalities"),
        *("prediction", "audio", "top_k", "min_p", "repeat_penalty", "typical_p", "mirostat"),
        *("ignore_eos", "grammar"),
    ),
    COMPLETIONS: ("n", "best_of", "echo", "logit_bias", "logprobs", "top_k", "min_p", "grammar"),
}
# As of 0.32: vllm/entrypoints/openai/*/protocol.py.
_VLLM_DROPS = {
    CHAT: (
        *("functions", "function_call", "modalities", "prediction", "audio"),
        *("repeat_penalty", "typical_p", "mirostat", "grammar"),
    ),
    COMPLETIONS: ("best_of", "repeat_penalty", "typical_p", "mirostat", "grammar"),
}


def _joined(message: Any) -> Any:
    """A message whose text comes in parts, in one.

    Ollama would make a message of each part, vLLM a line.
    """
    parts = message.get("content") if isinstance(message, dict) else None
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in parts
    ):
        return message
    return {**message, "content": "".join(part["text"] for part in parts)}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _tagged(model: str) -> str:
    """Ollama's full name of a model: one without a tag is the latest."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


PROVIDERS: dict[str, type[LLMProvider]] = {
    provider.name: provider for provider in (LlamaCpp, Ollama, VLLM)
}
