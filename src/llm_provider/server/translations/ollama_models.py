"""Answers of Ollama's routes about models: /api/tags, /api/show, /api/ps, /api/version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_provider.server.translations.fields import as_name, require
from llm_provider.server.translations.ollama_request import bare_name

API_VERSION = "0.34.0"
"""The version whose API is translated: clients look at it to know what they may ask for."""

_FOREVER = "9999-12-31T23:59:59Z"
_UNKNOWN_TIME = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a served model; what is not stays empty, as in Ollama's own answers.

    `modified` is a time such as 2026-11-30T00:00:00Z, `digest` the weights' SHA-256 in hex, `size`
    their bytes, `size_vram` those on the GPU. `capabilities` are Ollama's: completion, tools,
    thinking, vision, embedding.
    """

    name: str
    modified: str = _UNKNOWN_TIME
    size: int = 0
    size_vram: int = 0
    digest: str = ""
    format: str = "gguf"
    family: str = ""
    parameters: str = ""
    quantization: str = ""
    context_size: int = 0
    embedding_size: int = 0
    capabilities: tuple[str, ...] = ("completion",)
    template: str = ""

    @property
    def tagged(self) -> str:
        """Ollama's full name: clients look for it, and for what stands before the colon."""
        return self.name if ":" in self.name.rsplit("/", 1)[-1] else f"{self.name}:latest"


def tags(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """Return the answer of GET /api/tags: the models that there are."""
    return {
        "models": [
            {**_entry(model), "modified_at": model.modified, **_capabilities(model)}
            for model in models
        ]
    }


def running(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """Return the answer of GET /api/ps: the models that are loaded, which stay so."""
    return {
        "models": [
            {
                **_entry(model),
                "expires_at": _FOREVER,
                "size_vram": model.size_vram,
                "context_length": model.context_size,
            }
            for model in models
        ]
    }


def shown_name(body: Mapping[str, Any]) -> str:
    """Return the model that a body of POST /api/show asks about. Raises TranslationError."""
    if body.get("model") is None and body.get("name") is not None:  # Ollama's name for it before
        return bare_name(as_name(body["name"], "name"))
    require(body, "model")
    return bare_name(as_name(body["model"], "model"))


def show(model: ModelInfo) -> dict[str, Any]:
    """Return the answer of POST /api/show."""
    family = model.family or "unknown"
    info: dict[str, Any] = {"general.architecture": family}
    if model.context_size:
        info[f"{family}.context_length"] = model.context_size
    if model.embedding_size:
        info[f"{family}.embedding_length"] = model.embedding_size
    return {
        "modelfile": f"FROM {model.tagged}\n",
        "parameters": f"num_ctx {model.context_size}" if model.context_size else "",
        "template": model.template,
        "details": _details(model),
        "model_info": info,
        **_capabilities(model),
        "modified_at": model.modified,
    }


def version() -> dict[str, str]:
    """Return the answer of GET /api/version."""
    return {"version": API_VERSION}


def _entry(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.tagged,
        "model": model.tagged,
        "size": model.size,
        "digest": model.digest,
        "details": _details(model),
    }


def _details(model: ModelInfo) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": [model.family] if model.family else [],
        "parameter_size": model.parameters,
        "quantization_level": model.quantization,
    }


def _capabilities(model: ModelInfo) -> dict[str, list[str]]:
    return {"capabilities": list(model.capabilities)}
