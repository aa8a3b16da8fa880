"""The weights that a caller requests, parsed and checked."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from ..files import check_file_name

UNVERIFIED_SUFFIXES = (".partial", ".rejected")
"""Endings of files that are not verified, and are never served."""


class StoreError(Exception):
    """The weights store cannot be brought to the requested state.

    The text says what is wrong, what was found and what to do, without the last full stop.
    """


class WeightsFile(NamedTuple):
    """A requested file: its path in the models folder, its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str
    bundle: str = ""  # the name of all the model's files together


class OllamaModel(NamedTuple):
    """A model that Ollama serves from one of the files."""

    name: str
    weights: WeightsFile
    projector: Optional[WeightsFile]  # encodes images, for a vision model
    family: str  # general.architecture in the GGUF header
    quantization: str
    parameters: str  # the number of parameters, such as "135M"; may be empty


def parse_weights_file(entry: Mapping[str, Any]) -> WeightsFile:
    """Parse an element of `files` or `ollama`. Raises StoreError for an invalid value."""
    path, size, sha256 = str(entry["file"]), entry["size"], str(entry["sha256"])
    # A model of several files has a folder of its own.
    folder, slash, last = path.partition("/")
    try:
        for part in (folder, last) if slash else (folder,):
            check_file_name(part, "models")
    except ValueError:
        raise StoreError(
            f"weights path {path!r} is invalid: it is no file in the models folder or in one"
            " folder of it. Correct the file name in models.yml"
        ) from None
    if path.startswith(".") or last.startswith(".") or path.endswith(UNVERIFIED_SUFFIXES):
        raise StoreError(
            f"weights path {path!r} is invalid: names that begin with a dot or end in"
            f" {' or '.join(UNVERIFIED_SUFFIXES)} are reserved for files that are not verified."
            " Choose another file name in models.yml"
        )
    if not isinstance(size, int) or size <= 0:
        raise StoreError(
            f"size of {path} is invalid: {size!r}. Set the size in bytes, a number above 0"
        )
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise StoreError(
            f"sha256 of {path} is invalid: {sha256!r}. Set 64 hexadecimal digits in lower case"
        )
    return WeightsFile(path, size, sha256, str(entry.get("bundle") or ""))


def parse_ollama_model(entry: Mapping[str, Any], files: Sequence[WeightsFile]) -> OllamaModel:
    """Parse an element of `ollama`, whose weights must be among `files`. Raises StoreError."""
    name, weights = str(entry["name"]), parse_weights_file(entry)
    projector = parse_weights_file(entry["projector"]) if entry.get("projector") else None
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", name):
        raise StoreError(
            f"name of the Ollama model is invalid: {name!r}. Use up to 80 characters of a-z, 0-9,"
            " '.', '_' and '-', beginning with a letter or a digit"
        )
    for each in (weights, projector) if projector else (weights,):
        if each not in files:
            raise StoreError(
                f"weights of the Ollama model {name} are missing: 'files' has no {each.path} with"
                f" {each.size} bytes and sha256 {each.sha256}. Add that entry to 'files'"
            )
    return OllamaModel(
        name,
        weights,
        projector,
        str(entry["family"]),
        str(entry["quantization"]),
        str(entry.get("parameters") or ""),
    )
