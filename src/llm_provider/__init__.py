"""One async interface to llama.cpp, Ollama and vLLM, and the chat API that stands before them.

    from llm_provider import get_llm_provider

    async with get_llm_provider("llamacpp", model="smollm2-135m") as llm:
        answer = await llm.chat(messages=[{"role": "user", "content": "Hello"}])

Names are loaded when first used: the container's health probe imports this package every few
seconds on a small board, and must not pay for an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_provider.client.accumulator import ChatCompletionAccumulator
    from llm_provider.client.sync import SyncLLMProvider, SyncStream, get_sync_llm_provider
    from llm_provider.errors import (
        ConfigurationError,
        ContextFullError,
        EngineLoadingError,
        EngineRefusedError,
        EngineTimeoutError,
        EngineUnreachableError,
        LLMError,
        MalformedAnswer,
        StreamInterruptedError,
        Unsupported,
    )
    from llm_provider.http.settings import Timeouts
    from llm_provider.providers.base import Capacity, LLMProvider
    from llm_provider.providers.chat_types import ChatCompletion, ChatCompletionChunk
    from llm_provider.providers.embeddings import Embeddings
    from llm_provider.providers.engine_http import Answer
    from llm_provider.providers.llamacpp import LlamaCpp
    from llm_provider.providers.ollama import Ollama
    from llm_provider.providers.selection import choose_provider, get_llm_provider
    from llm_provider.providers.stream import Stream
    from llm_provider.providers.vllm import VLLM

__version__ = "0.1.0"
API_PORT = 8000
ENGINE_PORT = 11434
"""Where the host itself, and it alone, finds its engine."""

_HOME = {
    "Answer": "providers.engine_http",
    "Capacity": "providers.base",
    "ChatCompletion": "providers.chat_types",
    "ChatCompletionAccumulator": "client.accumulator",
    "ChatCompletionChunk": "providers.chat_types",
    "Embeddings": "providers.embeddings",
    "LLMProvider": "providers.base",
    "LlamaCpp": "providers.llamacpp",
    "Ollama": "providers.ollama",
    "VLLM": "providers.vllm",
    "ConfigurationError": "errors",
    "ContextFullError": "errors",
    "StreamInterruptedError": "errors",
    "LLMError": "errors",
    "EngineLoadingError": "errors",
    "MalformedAnswer": "errors",
    "EngineUnreachableError": "errors",
    "EngineRefusedError": "errors",
    "EngineTimeoutError": "errors",
    "Stream": "providers.stream",
    "SyncLLMProvider": "client.sync",
    "SyncStream": "client.sync",
    "Timeouts": "http.settings",
    "Unsupported": "errors",
    "choose_provider": "providers.selection",
    "get_llm_provider": "providers.selection",
    "get_sync_llm_provider": "client.sync",
}

__all__ = [
    "API_PORT",
    "ENGINE_PORT",
    "VLLM",
    "Answer",
    "Capacity",
    "ChatCompletion",
    "ChatCompletionAccumulator",
    "ChatCompletionChunk",
    "ConfigurationError",
    "ContextFullError",
    "Embeddings",
    "EngineLoadingError",
    "EngineRefusedError",
    "EngineTimeoutError",
    "EngineUnreachableError",
    "LLMError",
    "LLMProvider",
    "LlamaCpp",
    "MalformedAnswer",
    "Ollama",
    "Stream",
    "StreamInterruptedError",
    "SyncLLMProvider",
    "SyncStream",
    "Timeouts",
    "Unsupported",
    "__version__",
    "choose_provider",
    "get_llm_provider",
    "get_sync_llm_provider",
]


# Names of version 0.1: see `errors.RENAMED`.
_HOME |= dict.fromkeys(
    ("Crowded", "Interrupted", "Loading", "NotReachable", "Rejected", "TimedOut"), "errors"
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
