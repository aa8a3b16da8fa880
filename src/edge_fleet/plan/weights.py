"""Which files a model takes, where they go on a host, and whether its disk has room."""

from __future__ import annotations

import hashlib
from typing import Any

from edge_fleet.plan.types import Model, ModelFile, freeze
from edge_fleet.text import Problem, did_you_mean, join_choices, join_names
from edge_host.constants import DISK_RESERVE
from edge_host.sizes import format_mib


def source_problems(mirror: str, token: bool) -> list[Problem]:
    """Why the source cannot be used: the token of a gated model is for nobody on the way there."""
    if not token or not mirror.startswith("http:"):
        return []
    return [
        f"llm_models_mirror does not fit: {mirror!r} is not encrypted, and llm_models_token would"
        " be readable on the way. Use an address that begins with https://, or remove"
        " llm_models_token."
    ]


def _lock_problems(name: str, weights: dict[str, Any], mirror: str) -> list[Problem]:
    """Why downloaded weights of an entry of models.yml could not be verified."""
    files = weights["files"]
    missing = [] if weights.get("revision") else ["revision"]
    missing += [key for key in ("size", "sha256") if not all(file.get(key) for file in files)]
    if not missing:
        return []
    return [
        f"llm_model {name} is invalid: models.yml has no {' and no '.join(missing)} for its files,"
        f" so a download could not be verified. Run `make lock MODEL={name}`, which asks {mirror}."
    ]


def _places(
    files: list[dict[str, Any]], name: str, kind: str, bundle: str, installed: dict[str, Any]
) -> list[str]:
    """Where a model's files go below the host's models folder: their paths.

    Their own names, unless those belong to another content: what a release on the host serves must
    not change under it. A host that keeps weights for others has them in a folder of their own.
    """
    digest = bundle.rpartition("-")[2]
    if kind == "hf":
        # They are used as a folder, so they stay together.
        choices = [f"{name}.hf/", f"{name}.hf-{digest}/", f"{bundle}/"]
        ways = [[f"{folder}{file['file']}" for file in files] for folder in choices]
        return _first(files, ways, installed)
    return [
        _first(
            [file],
            [
                [file["file"]],
                [f"{file['sha256'][:8]}-{file['file']}"],
                [f"{bundle}/{file['file']}"],
            ],
            installed,
        )[0]
        for file in files
    ]


def _first(
    files: list[dict[str, Any]], ways: list[list[str]], installed: dict[str, Any]
) -> list[str]:
    """The first of several namings by which the files are installed; else the first free one."""

    def recorded(path: str) -> str | None:
        found: str | None = installed.get(path, {}).get("recorded_sha256")
        return found

    wanted = [file["sha256"] for file in files]
    for paths in ways:
        if list(map(recorded, paths)) == wanted:
            return paths
    for paths in ways[:-1]:
        if all(recorded(path) in (None, each) for path, each in zip(paths, wanted, strict=True)):
            return paths
    return ways[-1]


def plan_model(
    name: str,
    engine: dict[str, Any],
    provider: str,
    catalogue: dict[str, Any],
    mirror: str,
    installed: dict[str, Any],
) -> tuple[Model | None, list[Problem]]:
    """The model's files with their hashes and paths, and its known answer; None with the reasons.

    `installed` is the content of the host's models folder.
    """
    if name not in catalogue:
        hint = did_you_mean(name, catalogue)
        return None, [
            f"llm_model is invalid: models.yml has no {name!r}.{hint}"
            f" Use {join_choices(sorted(catalogue))}."
        ]
    entry = catalogue[name]
    kind = engine["weights"]
    if not entry.get(kind):
        able = sorted(each for each, model in catalogue.items() if model.get(kind))
        advice = f"Use {join_choices(able)}" if able else "Use another llm_provider"
        return None, [
            f"llm_model does not fit: {provider} needs {kind} weights, and models.yml has none for"
            f" {name}. {advice}."
        ]
    weights = entry[kind]
    if problems := _lock_problems(name, weights, mirror):
        return None, problems
    base = f"{weights['repository']}/resolve/{weights['revision']}"
    # The weights themselves first.
    entries = sorted(weights["files"], key=lambda file: file.get("part", "weights") != "weights")
    content = "\n".join(f"{file['sha256']} {file['file']}" for file in entries)
    digest = hashlib.sha256(content.encode()).hexdigest()
    bundle = f"{name}.{kind}-{digest[:12]}"
    paths = _places(entries, name, kind, bundle, installed)
    files = tuple(
        ModelFile(
            name=file["file"],
            path=path,
            size=file["size"],
            sha256=file["sha256"],
            part=file.get("part", "weights"),
            place=f"{base}/{file['file']}",
        )
        for file, path in zip(entries, paths, strict=True)
    )
    parts = {file.part: file.path for file in reversed(files)}
    folder = files[0].path.rpartition("/")[0] if kind == "hf" else ""
    # vLLM's weights have the projector within; llama.cpp and Ollama see by a file of its own.
    vision = "projector" in parts if kind == "gguf" else "vision" in entry.get("abilities", [])
    proof = entry.get("proof") or {}
    header = {"family": weights["family"], "quantization": weights["quantization"]}
    return Model(
        name=name,
        task=entry.get("task", "chat"),
        bundle=bundle,
        digest=digest,
        files=files,
        family=weights["family"],
        quantization=weights["quantization"],
        shape=freeze(entry["shape"]),
        header=freeze(header | entry["shape"] if kind == "gguf" else {}),
        path=f"/models/{folder or parts['weights']}",
        projector=f"/models/{parts['projector']}" if "projector" in parts else "",
        vision=vision,
        proof=freeze({"prompt": proof.get("prompt"), "answer": proof.get("answer")}),
        present=not _missing(files, installed),
    ), []


def _missing(files: tuple[ModelFile, ...], installed: dict[str, Any]) -> list[ModelFile]:
    """The files that are not on the host, by path and size."""
    return [
        file
        for file in files
        if file.path not in installed or installed[file.path]["size"] != file.size
    ]


def disk_problems(model: Model, state: dict[str, Any], keep: int | None) -> list[Problem]:
    """Why the host's disk has no room for the weights that are to be downloaded."""
    missing = sum(file.size for file in _missing(model.files, state["models"]))
    if not missing:
        return []
    disk = state["board"]["disk"]
    # A part that is downloaded already needs no more room.
    downloaded = min(missing, state["unfinished"].get(model.bundle, 0))
    needed = missing - downloaded + DISK_RESERVE
    paths = [file.path for file in model.files]
    removed = set(_prunable(state, paths, keep))
    if disk["free"] + sum(state["models"][path]["size"] for path in removed) >= needed:
        return []
    already = f", {format_mib(downloaded)} of them downloaded," if downloaded else ""
    others = {path: size for path, size in unused(paths, state).items() if path not in removed}
    advice = "Free disk space."
    if others:
        advice = (
            f"llm_models_keep: 0 would remove {join_names(others)}"
            f" ({format_mib(sum(others.values()))}), which neither the current nor the previous"
            " release uses."
        )
    return [
        f"{model.name} does not fit: it needs {format_mib(needed)} of disk ({format_mib(missing)}"
        f" of weights{already} and {format_mib(DISK_RESERVE)} in reserve), and {disk['path']} has"
        f" {format_mib(disk['free'])} free. {advice}"
    ]


def prunable(state: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Paths of the weights that llm_models_keep removes; the latest models stay."""
    paths = [file["path"] for file in plan["model"]["files"]]
    return _prunable(state, paths, plan["sources"]["keep"])


def unused(planned: list[str], state: dict[str, Any]) -> dict[str, int]:
    """Verified weights on the host that neither the planned files nor a release of the host need:
    path -> size. Files that nobody verified belong to somebody else.
    """
    needed: set[str | None] = set(planned)
    for name in ("release", "previous"):
        release = state["deployment"][name]
        # A release of another version of this project has one file.
        model = release["plan"]["model"] if release else {}
        needed |= {file["path"] for file in model.get("files", [])} | {model.get("file")}
    return {
        path: file["size"]
        for path, file in state["models"].items()
        if file["recorded_sha256"] and path not in needed
    }


def _prunable(state: dict[str, Any], planned: list[str], keep: int | None) -> list[str]:
    if keep is None:
        return []
    installed = state["models"]
    bundles: dict[str, list[str]] = {}
    for path in unused(planned, state):
        bundles.setdefault(installed[path]["bundle"] or path, []).append(path)
    latest = sorted(
        bundles.values(), key=lambda paths: max(installed[path]["mtime_ns"] for path in paths)
    )
    return sorted(path for paths in latest[: max(0, len(latest) - keep)] for path in paths)
