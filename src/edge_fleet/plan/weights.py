"""Which files a model takes, where they go on a host, and whether its disk has room."""

from __future__ import annotations

import hashlib
from typing import Any

from edge_fleet.text import Problem, did_you_mean, format_mib, join_names
from edge_host.constants import DISK_RESERVE


def _lock_problems(name: str, weights: dict[str, Any], mirror: str) -> list[Problem]:
    """Why the weights of an entry of models.yml cannot be verified."""
    files = weights["files"]
    unlocked = [] if weights["revision"] else ["revision"]
    unlocked += [key for key in ("size", "sha256") if not all(file.get(key) for file in files)]
    if unlocked:
        return [
            f"llm_model {name} has no {' and no '.join(unlocked)} in models.yml, so what is"
            f" downloaded could not be checked; `make lock MODEL={name}` asks {mirror} and writes"
            " them down."
        ]
    return []


def _places(
    files: list[dict[str, Any]], name: str, kind: str, bundle: str, there: dict[str, Any]
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
        return _first(files, ways, there)
    return [
        _first(
            [file],
            [
                [file["file"]],
                [f"{file['sha256'][:8]}-{file['file']}"],
                [f"{bundle}/{file['file']}"],
            ],
            there,
        )[0]
        for file in files
    ]


def _first(files: list[dict[str, Any]], ways: list[list[str]], there: dict[str, Any]) -> list[str]:
    """The first of several ways to name files by which they are there; else the first free one."""

    def recorded(path: str) -> str | None:
        found: str | None = there.get(path, {}).get("recorded_sha256")
        return found

    wanted = [file["sha256"] for file in files]
    for paths in ways:
        if list(map(recorded, paths)) == wanted:
            return paths
    for paths in ways[:-1]:
        if all(recorded(path) in (None, each) for path, each in zip(paths, wanted, strict=True)):
            return paths
    return ways[-1]


def model_plan(
    name: str,
    engine: dict[str, Any],
    provider: str,
    catalogue: dict[str, Any],
    mirror: str,
    there: dict[str, Any],
) -> tuple[dict[str, Any], list[Problem]]:
    """The model's part of the plan: its files, their hashes and addresses, the known answer.

    `there` is what the host's models folder has.
    """
    if name not in catalogue:
        return {}, [
            f"llm_model is {name!r};{did_you_mean(name, list(catalogue))}"
            f" models.yml has: {join_names(list(catalogue))}."
        ]
    entry = catalogue[name]
    kind = engine["weights"]
    if kind not in entry:
        able = [each for each, model in catalogue.items() if kind in model]
        return {}, [
            f"llm_model {name} has no {kind} weights in models.yml, which {provider} needs;"
            f" models that have: {join_names(able) or 'none'}."
        ]
    weights = entry[kind]
    if problems := _lock_problems(name, weights, mirror):
        return {}, problems
    base = f"{weights['repository']}/resolve/{weights['revision']}"
    # The weights themselves first, whatever comes with them.
    entries = sorted(weights["files"], key=lambda file: "part" in file)
    content = "\n".join(f"{file['sha256']} {file['file']}" for file in entries)
    digest = hashlib.sha256(content.encode()).hexdigest()
    bundle = f"{name}.{kind}-{digest[:12]}"
    files = [
        {
            "name": file["file"],
            "path": path,
            "size": file["size"],
            "sha256": file["sha256"],
            "part": file.get("part", "weights"),
            "place": f"{base}/{file['file']}",
        }
        for file, path in zip(entries, _places(entries, name, kind, bundle, there), strict=True)
    ]
    parts = {file["part"]: file["path"] for file in reversed(files)}
    folder = files[0]["path"].rpartition("/")[0] if kind == "hf" else ""
    proof = entry.get("proof") or {}
    header = {"family": weights["family"], "quantization": weights["quantization"]}
    return {
        "name": name,
        "title": entry["title"],
        "kind": kind,
        # One name for these very files, wherever they are.
        "bundle": bundle,
        "files": files,
        "size": sum(file["size"] for file in files),
        "digest": digest,
        "family": weights["family"],
        "quantization": weights["quantization"],
        "gated": bool(weights.get("gated")),
        "shape": entry["shape"],
        "header": header | entry["shape"] if kind == "gguf" else {},
        "path": f"/models/{folder or parts['weights']}",
        "projector": f"/models/{parts['projector']}" if "projector" in parts else "",
        "proof": {"prompt": proof.get("prompt"), "answer": proof.get("answer")},
    }, []


def missing_files(model: dict[str, Any], there: dict[str, Any]) -> list[dict[str, Any]]:
    """Files of a model that are not on the host, by name and size."""
    return [
        file
        for file in model["files"]
        if file["path"] not in there or there[file["path"]]["size"] != file["size"]
    ]


def disk_problems(model: dict[str, Any], state: dict[str, Any], keep: int | None) -> list[Problem]:
    missing = sum(file["size"] for file in missing_files(model, state["models"]))
    if not missing:
        return []
    disk = state["board"]["disk"]
    # What has come of it already takes no more.
    come = min(missing, state["unfinished"].get(model["bundle"], 0))
    need = missing - come + DISK_RESERVE
    goes = set(_prunable(state, model, keep))
    if disk["free"] + sum(state["models"][path]["size"] for path in goes) >= need:
        return []
    already = f", of which {format_mib(come)} have come" if come else ""
    others = {path: size for path, size in unused(model, state).items() if path not in goes}
    hint = ""
    if others:
        names = ", ".join(sorted(others))
        hint = (
            f"; llm_models_keep: 0 would remove {names} ({format_mib(sum(others.values()))}), which"
            " neither this release nor the one before uses"
        )
    return [
        f"{model['name']} needs {format_mib(need)} of disk ({format_mib(missing)} for its"
        f" weights{already} and {format_mib(DISK_RESERVE)} in reserve), and {disk['path']} has"
        f" {format_mib(disk['free'])} free{hint}."
    ]


def unused(model: dict[str, Any], state: dict[str, Any]) -> dict[str, int]:
    """Verified weights on the host that neither the plan nor a release that it could go back to
    needs: path -> size. Files that nobody verified are somebody's own, and not told of.
    """
    needed = {file["path"] for file in model["files"]}
    for name in ("release", "previous"):
        release = state["deployment"][name]
        # One that another version of this project has made tells of one file.
        model = release["plan"]["model"] if release else {}
        needed |= {file["path"] for file in model.get("files", [])} | {model.get("file")}
    return {
        path: there["size"]
        for path, there in state["models"].items()
        if there["recorded_sha256"] and path not in needed
    }


def prunable(state: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Weights on the host that llm_models_keep has go (paths): the models that came last stay."""
    return _prunable(state, plan["model"], plan["sources"]["keep"])


def _prunable(state: dict[str, Any], model: dict[str, Any], keep: int | None) -> list[str]:
    if keep is None:
        return []
    there = state["models"]
    bundles: dict[str, list[str]] = {}
    for path in unused(model, state):
        bundles.setdefault(there[path]["bundle"] or path, []).append(path)
    latest = sorted(
        bundles.values(), key=lambda paths: max(there[path]["mtime_ns"] for path in paths)
    )
    return sorted(path for paths in latest[: max(0, len(latest) - keep)] for path in paths)
