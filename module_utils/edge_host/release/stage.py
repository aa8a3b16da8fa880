"""Stages a release on the host, with its images, while the current one serves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Mapping, Optional

from ..constants import DOOR, ENGINE_PORTS, IMAGE_HOURS, NETWORK, RELEASE
from ..files import sync_folder
from ..host_info.weights import read_models, read_ollama
from ..json_data import Facts
from ..release_record import hash_text
from .engine_key import hash_engine_key
from .errors import ReleaseError
from .host import Host
from .memory_check import check_memory
from .request import ReleaseRequest
from .slots import SOURCE, choose_slots, fill_slots
from .store import (
    COMPOSE_FILE,
    ENGINE_FILE,
    ENV_FILE,
    PARTS,
    Release,
    read_variable,
    replace_file,
    utc_now,
)

PULL_SECONDS = IMAGE_HOURS * 3600


def stage_release(host: Host, request: ReleaseRequest) -> Release:
    """Write a release, with its images on the host; nothing that runs is touched.

    A part that is the same in the current release keeps its slot, and so its container. Raises
    ReleaseError where the weights or an image are missing, or the memory is too small.
    """
    plan = request.metadata["plan"]
    current = host.releases.current()
    number = max(host.releases.list_numbers(), default=0) + 1
    folder = host.releases.folder / f".{number:04d}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / SOURCE).mkdir(mode=0o700)
    for name, text in request.files.items():
        # On the disk with everything else, by the sync before the release gets its name.
        (folder / SOURCE / name).write_text(text, encoding="utf-8")
    env = request.files[ENV_FILE]
    # A part's signature does not depend on its slot: all are compared in slot a.
    in_slot_a = dict.fromkeys(PARTS, "a")
    replace_file(folder / ENV_FILE, _complete_env(host, request, in_slot_a), 0o600)
    replace_file(folder / COMPOSE_FILE, fill_slots(request.files[COMPOSE_FILE], in_slot_a))
    _check_weights(host, plan)
    key_hash = hash_engine_key(host.root)
    signatures = _compute_signatures(host, folder, plan, key_hash)
    slots = choose_slots(signatures, current)
    texts = {
        COMPOSE_FILE: fill_slots(request.files[COMPOSE_FILE], slots),
        ENV_FILE: _complete_env(host, request, slots),
        ENGINE_FILE: fill_slots(request.files[ENGINE_FILE], slots),
    }
    record = {
        "number": number,
        "made": utc_now(),
        **request.metadata,
        # As rendered, to see whether another release is requested; as written, to see whether
        # somebody edited the files.
        "rendered": {name: hash_text(text) for name, text in request.files.items()},
        "written": {name: hash_text(text) for name, text in texts.items()},
        "signatures": signatures,
        "engine_key": key_hash,
        "slots": slots,
    }
    replace_file(folder / COMPOSE_FILE, texts[COMPOSE_FILE])
    replace_file(folder / ENV_FILE, texts[ENV_FILE], 0o600)
    replace_file(folder / ENGINE_FILE, texts[ENGINE_FILE])
    replace_file(folder / RELEASE, json.dumps(record, indent=1) + "\n", 0o600)
    _provide_images(host, plan["engine"]["image"], read_variable(env, "API_IMAGE"))
    if not current or signatures["engine"] != current.signatures["engine"]:
        check_memory(plan, current.plan if current else None)
    # Images, weights and keys were written by others; a release's name says that all is there.
    os.sync()
    final = host.releases.folder / f"{number:04d}"
    folder.rename(final)
    sync_folder(host.releases.folder)
    return Release(final, record)


def _complete_env(host: Host, request: ReleaseRequest, slots: Mapping[str, str]) -> str:
    """Return the text of .env with the lines that the host adds, as far as Compose reads them."""
    env, compose = request.files[ENV_FILE], request.files[COMPOSE_FILE]
    image = read_variable(env, "API_IMAGE")
    added = {
        "ENGINE_PORT": str(ENGINE_PORTS[slots["engine"]]),
        "NETWORK_IMAGE": _read_image(host, NETWORK) or image,
        # Of the socket holder, in releases of earlier versions.
        "DOOR_IMAGE": _read_image(host, DOOR) or image,
    }
    used = (name for name in added if f"${{{name}}}" in compose)
    return env + "".join(f"{name}={added[name]}\n" for name in used)


def _read_image(host: Host, name: str) -> Optional[str]:
    """Return the image of a container that stays over releases; None where it does not run.

    Compose, typed by hand, would replace it for another one.
    """
    found = host.docker.inspect(name) if host.docker.is_running(name) else None
    return str(found["Config"]["Image"]) if found else None


def _compute_signatures(host: Host, folder: Path, plan: Facts, key_hash: str) -> Dict[str, str]:
    """Return a hash for each part: of its service as Compose reads it, and of weights and key."""
    config = json.loads(host.compose.run(folder, "config", "--format", "json").stdout)
    services = config["services"]
    parts = {
        "engine": [services["engine-a"], plan["model"]["digest"], key_hash],
        "api": [services["api-a"]],
    }
    return {
        part: hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
        for part, each in parts.items()
    }


def _check_weights(host: Host, plan: Facts) -> None:
    """Raise ReleaseError where weights are missing, not verified, or unknown to the engine."""
    model = plan["model"]
    folder = host.root / "models"
    if "files" not in model:
        raise ReleaseError(
            "the release is not usable: it was made by an older version of this project. Run"
            " site.yml"
        )
    found = read_models(folder)
    for file in model["files"]:
        weights = found.get(file["path"]) or {}
        if (weights.get("size"), weights.get("recorded_sha256")) != (file["size"], file["sha256"]):
            raise ReleaseError(
                f"the weights {file['path']} are missing on the host, or are not verified. Run"
                " site.yml, which downloads and verifies them"
            )
    hashes = [file["sha256"] for file in model["files"]]
    if plan["provider"] == "ollama" and read_ollama(folder).get(model["name"]) != hashes:
        raise ReleaseError(
            f"the model {model['name']} is missing in Ollama's store on the host. Run site.yml with"
            " that llm_model, which adds it"
        )


def _provide_images(host: Host, engine: str, api: str) -> None:
    """Check the chat API's image, and pull the engine's where it is missing."""
    if not host.docker.has_image(api):
        raise ReleaseError(
            f"the chat API's image {api} is missing on the host. Run site.yml, which provides it"
        )
    if not host.docker.has_image(engine):
        try:
            done = host.docker.run_command("pull", "--quiet", engine, timeout=PULL_SECONDS)
        except subprocess.TimeoutExpired:
            raise ReleaseError(
                f"the engine's image {engine} could not be pulled within {PULL_SECONDS:g} s. Check"
                " the registry and the host's network, and run this again"
            ) from None
        if done.returncode != 0:
            raise ReleaseError(
                f"the engine's image {engine} could not be pulled: {done.stderr.strip()}. Check the"
                " registry and the host's network, and run this again"
            )
