"""The files by which Ollama knows a model.

The store is written here as a pull would have written it, because `ollama create` would copy and
rewrite the weights: the model's blob is a hard link to the GGUF file itself. Its layout:
https://github.com/ollama/ollama, manifest/ and types/model/config.go.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, List, Tuple

from ..constants import OLLAMA_PROJECTOR_TYPE, OLLAMA_WEIGHTS_TYPE
from .asked import OllamaModel, Weights


def compact(value: Any) -> bytes:
    """JSON without spaces, keys in the order given, as registries write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def ollama_config(model: OllamaModel) -> bytes:
    """The config blob of a model: what /api/tags and /api/show tell of it."""
    return compact(
        {
            "model_format": "gguf",
            "model_family": model.family,
            "model_families": [model.family],
            "model_type": model.parameters,
            "file_type": model.quantization,
            # Of the image format, not of the host: every model in Ollama's library says this.
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{each.sha256}" for _, each in ollama_layers(model)],
            },
        }
    )


def ollama_layers(model: OllamaModel) -> List[Tuple[str, Weights]]:
    """(media type, file) of a model's layers."""
    layers = [(OLLAMA_WEIGHTS_TYPE, model.weights)]
    if model.projector:
        layers.append((OLLAMA_PROJECTOR_TYPE, model.projector))
    return layers


def ollama_manifest(model: OllamaModel) -> bytes:
    """The manifest of a model: its config blob, and the weights as layers.

    Without a template layer Ollama uses the chat template that the GGUF carries.
    """
    config = ollama_config(model)
    return compact(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
                "size": len(config),
            },
            "layers": [
                {"mediaType": kind, "digest": f"sha256:{each.sha256}", "size": each.size}
                for kind, each in ollama_layers(model)
            ],
        }
    )
