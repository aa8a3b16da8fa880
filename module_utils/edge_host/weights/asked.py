"""The weights that a host should have, as the caller names them."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from ..files import check_file_name

UNFINISHED = (".partial", ".rejected")  # names that no verified file has


class StoreError(Exception):
    """Why the store is not as asked, as a sentence for the operator."""


class Weights(NamedTuple):
    """A file that is asked: its path in the folder, its size in bytes and its SHA-256."""

    file: str
    size: int
    sha256: str
    bundle: str = ""  # the name of the model's files together


class OllamaModel(NamedTuple):
    """A model that Ollama is to offer from one of the files."""

    name: str
    weights: Weights
    projector: Optional[Weights]  # what makes a model of vision see
    family: str  # of the GGUF: general.architecture
    quantization: str
    parameters: str  # how many, for people: "135M"; empty where not told


def parse_weights(entry: Mapping[str, Any]) -> Weights:
    """An element of `files` or `ollama`, checked; StoreError with a sentence where it cannot be."""
    name, size, sha256 = str(entry["file"]), entry["size"], str(entry["sha256"])
    # A model of several files has a folder of its own.
    folder, slash, last = name.partition("/")
    try:
        for part in (folder, last) if slash else (folder,):
            check_file_name(part, "models")
    except ValueError:
        raise StoreError(
            f"models: {name!r} is asked; accepted is the name of a file in that folder, or in one"
            " folder of it"
        ) from None
    if name.startswith(".") or last.startswith(".") or name.endswith(UNFINISHED):
        raise StoreError(
            f"models: {name!r} is asked; names that begin with a dot or end in "
            f"{' or '.join(UNFINISHED)} are kept for files that are not ready to be served"
        )
    if not isinstance(size, int) or size <= 0:
        raise StoreError(f"models/{name}: size {size!r} is asked; accepted is a number of bytes")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise StoreError(
            f"models/{name}: sha256 {sha256!r} is asked; accepted are 64 digits, 0-9 and a-f"
        )
    return Weights(name, size, sha256, str(entry.get("bundle") or ""))


def parse_ollama(entry: Mapping[str, Any], files: Sequence[Weights]) -> OllamaModel:
    """An element of `ollama`, checked against the files; StoreError where they do not agree."""
    name, weights = str(entry["name"]), parse_weights(entry)
    projector = parse_weights(entry["projector"]) if entry.get("projector") else None
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", name):
        raise StoreError(
            f"ollama: the name {name!r} is asked; accepted are up to 80 of a-z, 0-9, '.', '_' and "
            "'-', the first a letter or digit"
        )
    for each in (weights, projector) if projector else (weights,):
        if each not in files:
            raise StoreError(
                f"ollama: {name} is to serve {each.file} with sha256 {each.sha256}, which is not "
                "among the files asked for; list it there with the same size and sha256"
            )
    return OllamaModel(
        name,
        weights,
        projector,
        str(entry["family"]),
        str(entry["quantization"]),
        str(entry.get("parameters") or ""),
    )
