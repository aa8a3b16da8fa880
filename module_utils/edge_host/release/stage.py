"""Writes a release to the host, with its images, while the old one serves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from ..constants import DOOR, MIB, RELEASE, RELEASES
from ..files import open_files, read_text, sync_folder
from ..host_info.hardware import parse_meminfo
from ..host_info.weights import read_models, read_ollama
from ..json_data import Facts
from .errors import Failure
from .store import COMPOSE, ENGINE, ENV, PARTS, Host, Release, now, write_text

ENGINE_KEY = "secrets/engine_key"
SOURCE = "source"
"""The folder in a release that has its files as they were rendered."""
TOKENS = {"engine": "@ENGINE_SLOT@", "api": "@API_SLOT@"}
"""What the templates have in a slot's place: no name, key or address can hold it."""
# Where releases of before there were tokens had a slot, in their files by name.
_FORMER_SLOTS = {
    COMPOSE: (
        r"(?m)^(  (?P<part>engine|api)-)[ab](?=:$)",
        r"(?m)^(    container_name: edge-llm-(?P<part>engine|api)-)[ab]$",
        r"(?m)^(      CHAT_API_SOCKET: /run/edge-llm/(?P<part>api)-)[ab](?=\.sock$)",
    ),
    ENGINE: (r"(?m)^(LLM_BASE_URL=http://(?P<part>engine)-)[ab](?=:)",),
}
# What may change beside an engine's own need while two are loaded.
_SPARE_MEMORY = 256 * MIB


def sha256(text: str) -> str:
    """A text's SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def slotted(text: str, slots: Mapping[str, str]) -> str:
    """A rendered file for the slots that its parts have."""
    for part, token in TOKENS.items():
        text = text.replace(token, slots[part])
    return text


def source(release: Release) -> Dict[str, str]:
    """A release's files by name, as they were rendered."""
    folder = release.folder / SOURCE
    if folder.is_dir():
        return {
            name: (folder / name).read_text(encoding="utf-8") for name in (COMPOSE, ENV, ENGINE)
        }
    texts = {}
    for name in (COMPOSE, ENV, ENGINE):
        text = (release.folder / name).read_text(encoding="utf-8")
        # Nowhere else: what looks like a slot there is somebody's name for something.
        for place in _FORMER_SLOTS.get(name, ()):
            text = re.sub(place, lambda found: found[1] + TOKENS[found["part"]], text)
        texts[name] = text
    # The only thing that is added to what was rendered, as the last line.
    texts[ENV] = re.sub(r"(?m)^DOOR_IMAGE=.*\n\Z", "", texts[ENV])
    return texts


def stage(host: Host, compose: str, env: str, engine: str, about: Facts) -> Release:
    """Write a release, with its images on the host; nothing that runs is touched.

    The files are as rendered, with TOKENS for slots. `about`: plan, by, start_timeout and
    drain_timeout (seconds), swap (auto, beside or one-by-one). A part that is as the current
    release has it keeps its slot, and so its container. Raises Failure.
    """
    current = host.current()
    number = max(host.numbers(), default=0) + 1
    folder = host.root / RELEASES / f".{number:04d}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    rendered = {COMPOSE: compose, ENV: env, ENGINE: engine}
    (folder / SOURCE).mkdir(mode=0o700)
    for name, text in rendered.items():
        # On the disk with all the rest, by the sync before the release gets its name.
        (folder / SOURCE / name).write_text(text, encoding="utf-8")
    env += f"DOOR_IMAGE={_door_image(host, env, current)}\n"
    write_text(folder / ENV, env, 0o600)
    # What a part is does not depend on its slot, so all are compared for slot a.
    write_text(folder / COMPOSE, slotted(compose, dict.fromkeys(PARTS, "a")))
    _check_weights(host, about["plan"])
    key = key_hash(host)
    signatures = _signatures(host, folder, about["plan"], key)
    slots = {}
    for part in PARTS:
        slots[part] = "a"
        if current:
            same = signatures[part] == current.record["signatures"][part]
            slot = current.record["slots"][part]
            slots[part] = slot if same else {"a": "b", "b": "a"}[slot]
    texts = {COMPOSE: slotted(compose, slots), ENV: env, ENGINE: slotted(engine, slots)}
    record = {
        "number": number,
        "made": now(),
        **about,
        # As rendered, to tell whether another is asked; as written, whether a hand was on it.
        "rendered": {name: sha256(text) for name, text in rendered.items()},
        "written": {name: sha256(text) for name, text in texts.items()},
        "signatures": signatures,
        "engine_key": key,
        "slots": slots,
    }
    write_text(folder / COMPOSE, texts[COMPOSE])
    write_text(folder / ENGINE, texts[ENGINE])
    write_text(folder / RELEASE, json.dumps(record, indent=1) + "\n", 0o600)
    _bring_images(host, about["plan"]["engine"]["image"], _value(env, "API_IMAGE"))
    _check_memory(about, current, signatures)
    # Images, weights and keys, which others have written: a release's name says that all is there.
    os.sync()
    folder.rename(host.root / RELEASES / f"{number:04d}")
    sync_folder(host.root / RELEASES)
    return Release(host.root / RELEASES / f"{number:04d}", record)


def _value(env: str, name: str) -> str:
    return dict(line.split("=", 1) for line in env.splitlines() if "=" in line)[name]


def _door_image(host: Host, env: str, current: Optional[Release]) -> str:
    """The door stays the one that runs: another would let go of the sockets."""
    if current is None or not host.docker.running(DOOR):
        return _value(env, "API_IMAGE")
    return _value((current.folder / ENV).read_text(encoding="utf-8"), "DOOR_IMAGE")


def make_engine_key(host: Host, owner: int) -> None:
    """See to it that the engine's key is there, for the containers' user (`owner`) alone.

    Made on the host, and known to nobody else: only the chat API speaks to the engine. A cut of the
    power can leave an empty file.
    """
    path = host.root / ENGINE_KEY
    if not (read_text(path) or "").strip():
        write_text(path, secrets.token_hex(20) + "\n", 0o600)
    path.chmod(0o600)
    os.chown(path, owner, owner)


def key_hash(host: Host) -> str:
    """SHA-256 of the engine's key: an engine that has started with another must start anew."""
    return sha256(read_text(host.root / ENGINE_KEY) or "")


def _signatures(host: Host, folder: Path, plan: Facts, key: str) -> Dict[str, str]:
    """What each part is, as one hash: as compose understands the files, weights and key."""
    config = json.loads(host.compose(folder, "config", "--format", "json").stdout)
    services = config["services"]
    parts = {
        "engine": [services["engine-a"], plan["model"]["digest"], key],
        "api": [services["api-a"]],
    }
    return {
        part: hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
        for part, each in parts.items()
    }


def _check_weights(host: Host, plan: Facts) -> None:
    """Raise Failure where the weights are not on the host, verified and known to the engine."""
    model = plan["model"]
    models = host.root / "models"
    found = read_models(models)
    if "files" not in model:
        raise Failure("it was made by another version of this project; run site.yml instead")
    for file in model["files"]:
        there = found.get(file["path"]) or {}
        if (there.get("size"), there.get("recorded_sha256")) != (file["size"], file["sha256"]):
            raise Failure(
                f"the weights {file['path']} are not on the host, verified; run site.yml, which"
                " brings them"
            )
    hashes = [file["sha256"] for file in model["files"]]
    if plan["provider"] == "ollama" and read_ollama(models).get(model["name"]) != hashes:
        raise Failure(
            f"Ollama does not know {model['name']} on the host; run site.yml with it asked"
        )


def _bring_images(host: Host, engine: str, api: str) -> None:
    if not host.docker.has_image(api):
        raise Failure(f"The chat API's image {api} is not on the host.")
    if not host.docker.has_image(engine):
        done = host.docker.command("pull", "--quiet", engine, timeout=None)
        if done.returncode != 0:
            raise Failure(f"The engine's image {engine} could not be pulled: {done.stderr.strip()}")


def _available() -> int:
    return parse_meminfo(read_text(Path("/proc/meminfo")) or "")[1] or 0


def _own(plan: Facts) -> int:
    """What an engine takes for itself: the plan's need without the system's."""
    return int(plan["memory"]["total"] - plan["memory"]["system"])


def _check_memory(about: Facts, current: Optional[Release], signatures: Facts) -> None:
    """Raise Failure where the engine does not fit, even once the old one has gone."""
    if current and signatures["engine"] == current.record["signatures"]["engine"]:
        return
    need, free = _own(about["plan"]), _available()
    freed = _own(current.plan) if current else 0
    if need > free + freed:
        holders = gpu_holders()
        raise Failure(
            f"{about['plan']['model']['name']} needs {need // MIB} MiB, and the host has"
            + f" {free // MIB} MiB"
            + (f" free and {freed // MIB} MiB in the engine that would stop" if freed else " free")
            + (f"; the GPU's memory is also held by {', '.join(holders)}" if holders else "")
            + "; stop what else uses memory, or choose a smaller llm_model."
        )


def gpu_holders(proc: Path = Path("/proc")) -> List[str]:
    """Processes of the host that hold a Jetson's GPU memory, as `name (pid N)`."""
    found = []
    for process in proc.glob("[0-9]*"):
        if "/dev/nvmap" in open_files(process):
            found.append(f"{(read_text(process / 'comm') or '').strip()} (pid {process.name})")
    return sorted(found)


def fits_beside(to: Release) -> bool:
    """Whether the new engine may load while the old one still serves."""
    swap = to.record["swap"]
    return bool(
        swap == "beside" or (swap == "auto" and _available() >= _own(to.plan) + _SPARE_MEMORY)
    )
