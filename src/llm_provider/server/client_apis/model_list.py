"""The served model under its names, as OpenAI's and Ollama's routes about models tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from llm_provider.providers.settings import Task
from llm_provider.server.translations.ollama_models import ModelInfo

_CAPABILITIES: dict[Task, tuple[str, ...]] = {
    Task.CHAT: ("completion", "tools"),
    Task.EMBEDDING: ("embedding",),
    Task.RERANK: (),
}


def model_entry(name: str, created: int, context_size: int | None) -> dict[str, Any]:
    """Return a model as OpenAI's /v1/models has it; `created` is a Unix time.

    The context size, in tokens of one conversation, stands where clients look for it: OpenAI's API
    has no field for it. `max_model_len` is vLLM's, `meta` llama.cpp's (where the trained context
    is the figure that clients read; they get what is served), `context_length` that of others.
    """
    entry: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "edge-llm",
    }
    if context_size:
        entry |= {
            "context_length": context_size,
            "max_model_len": context_size,
            "meta": {"n_ctx": context_size, "n_ctx_train": context_size},
        }
    return entry


def ollama_models(
    names: Iterable[str], task: Task, context_size: int | None, *, vision: bool = False
) -> list[ModelInfo]:
    """Return the served model for Ollama's routes, once for each of its names.

    Ollama's own program prints the beginning of a model's digest. The weights' is not known here,
    so that it is of the name: what clients do with it is to tell models apart.
    """
    capabilities = _CAPABILITIES[task] + (("vision",) if vision else ())
    return [
        ModelInfo(
            name=name,
            digest=sha256(name.encode()).hexdigest(),
            context_size=context_size or 0,
            capabilities=capabilities,
        )
        for name in names
    ]
