"""Builds the files of Ollama's store: config blob and manifest of a model.

The store is written here as a pull would have written it, because `ollama create` would copy and
rewrite the weights: the model's blob is a hard link to the GGUF file itself. Its layout:
https://github.com/ollama/ollama, manifest/ and types/model/config.go.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, List, Tuple

from ..constants import OLLAMA_PROJECTOR_TYPE, OLLAMA_WEIGHTS_TYPE
from .request import OllamaModel, WeightsFile


def _encode_json(value: Any) -> bytes:
    """Return JSON without spaces, keys in the given order, as registries write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def build_config(model: OllamaModel) -> bytes:
    """Return the config blob of a model, which /api/tags and /api/show report."""
    return _encode_json(
        {
            "model_format": "gguf",
            "model_family": model.family,
            "model_families": [model.family],
            "model_type": model.parameters,
            "file_type": model.quantization,
            # Of the image format, not of the host: every model in Ollama's library has this value.
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{each.sha256}" for _, each in list_layers(model)],
            },
        }
    )


def list_layers(model: OllamaModel) -> List[Tuple[str, WeightsFile]]:
    """Return (media type, file) of each layer of a model."""
    layers = [(OLLAMA_WEIGHTS_TYPE, model.weights)]
    if model.projector:
        layers.append((OLLAMA_PROJECTOR_TYPE, model.projector))
    return layers


def build_manifest(model: OllamaModel) -> bytes:
    """Return the manifest of a model: its config blob, and the weights as layers.

    Without a template layer Ollama uses the chat template of the GGUF file.
    """
    config = build_config(model)
    return _encode_json(
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
                for kind, each in list_layers(model)
            ],
        }
    )
