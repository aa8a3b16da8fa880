"""The models folder: weights, their recorded hashes, and Ollama's store."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from ..constants import (
    OLLAMA_LIBRARY,
    OLLAMA_PROJECTOR_TYPE,
    OLLAMA_STORE,
    OLLAMA_WEIGHTS_TYPE,
    RECORD,
    WORKSHOP,
)
from ..files import allocated, entries, read_text
from ..json_data import Facts, parse_json


def read_record(folder: Path) -> Dict[str, Facts]:
    """The record of verified files: {name: {"size", "mtime_ns", "sha256"}}.

    What cannot be read as that counts as no record: the files are then hashed again.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {
        name: entry
        for name, entry in record.items()
        if isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("mtime_ns"), int)
        and isinstance(entry.get("sha256"), str)
    }


def recorded_sha256(
    record: Mapping[str, Facts], name: str, status: os.stat_result
) -> Optional[str]:
    """The recorded hash of a file, as long as its size and time of change are those recorded."""
    entry = record.get(name)
    if entry is None:
        return None
    if (entry["size"], entry["mtime_ns"]) != (status.st_size, status.st_mtime_ns):
        return None
    return str(entry["sha256"])


def is_own(status: os.stat_result) -> bool:
    """Whether nobody but root can change a file of the models folder.

    Another owner could, and set its time of change: its recorded hash does not count. A caller who
    is not root has a models folder of its own.
    """
    return status.st_uid == 0 or os.geteuid() != 0


def read_models(folder: Path) -> Dict[str, Facts]:
    """The files of the models folder, by their paths in it, with those of models of several files:
    size (bytes), mtime_ns, recorded_sha256, bundle (of which files it is one).
    """
    record = read_record(folder)
    models = {}
    for path in weights_in(folder):
        status, name = path.lstat(), str(path.relative_to(folder))
        models[name] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "recorded_sha256": recorded_sha256(record, name, status) if is_own(status) else None,
            "bundle": record.get(name, {}).get("bundle"),
        }
    return models


def weights_in(folder: Path) -> List[Path]:
    """The regular files of the models folder, and of its folders that are no engine's store."""
    found: List[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        inside = path.is_dir() and not path.is_symlink() and path.name != OLLAMA_STORE
        for each in sorted(path.iterdir()) if inside else [path]:
            if stat.S_ISREG(each.lstat().st_mode) and not each.name.startswith("."):
                found.append(each)
    return found


def read_unfinished(folder: Path) -> Dict[str, int]:
    """Downloads that are not complete: name of the bundle -> bytes on the disk."""
    workshop = folder / WORKSHOP
    return {
        path.name: allocated(path)
        for path in ([] if workshop.is_symlink() else entries(workshop))
        if path.is_dir() and not path.is_symlink()
    }


def parse_manifest(text: str) -> Optional[Tuple[str, List[str]]]:
    """(sha256 of the config blob, sha256 of each layer of weights) of an Ollama manifest, or None.

    The model's own weights are the first.
    """
    kinds = (OLLAMA_WEIGHTS_TYPE, OLLAMA_PROJECTOR_TYPE)
    try:
        manifest = parse_json(text)
        config = str(manifest["config"]["digest"])
        layers = [layer for layer in manifest["layers"] if layer["mediaType"] in kinds]
        layers.sort(key=lambda layer: kinds.index(layer["mediaType"]))
        weights = [str(layer["digest"]).partition("sha256:")[2] for layer in layers]
    except (KeyError, TypeError):
        return None
    return (config.partition("sha256:")[2], weights) if weights else None


def read_ollama(folder: Path) -> Dict[str, List[str]]:
    """Model name -> sha256 of its weights, for each model in Ollama's store that is whole.

    Whole: manifest and config blob are there, and the weights' blobs are files of the models folder
    itself, not second copies. `folder` is the models folder.
    """
    store = folder / OLLAMA_STORE
    library = store / OLLAMA_LIBRARY
    if not library.is_dir():
        return {}
    ours = {path.lstat().st_ino for path in weights_in(folder)}
    models = {}
    for path in sorted(library.iterdir()):
        named = parse_manifest(read_text(path / "latest") or "")
        if named is None:
            continue
        config, *weights = (store / "blobs" / f"sha256-{each}" for each in (named[0], *named[1]))
        if config.is_file() and all(
            blob.is_file() and blob.stat().st_ino in ours for blob in weights
        ):
            models[path.name] = named[1]
    return models
