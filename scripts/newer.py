#!/usr/bin/env python3
"""`make status UPSTREAM=1`: whether the hub and registries have newer versions of what hosts serve.

Asks for hashes and digests, of the models' main revision and of the images' tags. Nothing is
downloaded, and nothing is changed. The hosts are those of a status, written as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from edge_fleet.settings import VARIABLES
from edge_fleet.text import join_names
from edge_host.image_ref import ImageRef
from scripts.lock import ROOT, Unresolved, digest_of, head

_HASH = re.compile(r"[0-9a-f]{64}")


def newer_model(hub: str, name: str, files: Iterable[Mapping[str, str]]) -> str:
    """How the hub's main revision of a model differs; empty where it does not.

    files: each with its `place` (OWNER/NAME/resolve/REVISION/FILE) and `sha256`. Raises Unresolved.
    """
    known = False
    for file in files:
        place = re.sub(r"/resolve/[^/]+/", "/resolve/main/", file["place"], count=1)
        headers = head(f"{hub.rstrip('/')}/{place}")
        found = headers.get("x-linked-etag", "").strip('"')
        # Of a small file the hub has no hash.
        if not _HASH.fullmatch(found):
            continue
        known = True
        if found != file["sha256"]:
            commit = headers.get("x-repo-commit", "main")
            return (
                f"the hub has another {place.rpartition('/')[2]} at {commit}. To take it, run"
                f" `make lock MODEL={name} REVISION=main`, then site.yml"
            )
    if not known:
        raise Unresolved("the hub has no hash of its files")
    return ""


def newer_image(image: str, architectures: Iterable[str]) -> str:
    """How the image that a tag names now differs; empty where it does not. Raises Unresolved."""
    wanted = ImageRef.parse(image)
    if wanted.tag is None or wanted.digest is None:
        raise Unresolved("it has no tag beside its digest, by which a registry could be asked")
    tag = str(wanted._replace(digest=None))
    now = digest_of(tag, None)
    if wanted.digest == now:
        return ""
    # The digest may be that of one architecture.
    for each in architectures:
        try:
            if digest_of(tag, each) == wanted.digest:
                return ""
        except Unresolved:
            continue
    return f"the tag stands for another image now: {now}. To take it, set its digest, then site.yml"


def newer_versions(
    hosts: Iterable[Mapping[str, Any]], hub: str, architectures: Iterable[str]
) -> list[str]:
    """A line for each model and image that hosts serve."""
    models: dict[str, Any] = {}
    users: dict[tuple[str, str], set[str]] = {}
    for host in hosts:
        if host["release"] is None:
            continue
        models[host["model"]] = host["model_files"]
        for what in (("model", host["model"]), ("image", host["image"])):
            users.setdefault(what, set()).add(host["host"])
    lines = []
    for (kind, name), names in sorted(users.items()):
        try:
            found = (
                newer_model(hub, name, models[name])
                if kind == "model"
                else newer_image(name, architectures)
            )
        except (Unresolved, ValueError) as error:
            found = f"not known: {error}"
        lines.append(f"{kind} {name} ({join_names(names)}): {found or 'no newer version'}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Print what is newer; exit status 2 where the status cannot be read."""
    parser = argparse.ArgumentParser(prog="make status UPSTREAM=1", description=__doc__)
    parser.add_argument("status", type=Path)
    parser.add_argument("--hub", default=VARIABLES["llm_models_mirror"].default)
    asked = parser.parse_args(arguments)
    try:
        hosts = json.loads(asked.status.read_text(encoding="utf-8"))["hosts"]
    except (OSError, ValueError, KeyError) as error:
        print(f"{asked.status} cannot be read as a status: {error}.", file=sys.stderr)
        return 2
    architectures = yaml.safe_load((ROOT / "boards.yml").read_text())["architectures"].values()
    print("\n".join(newer_versions(hosts, asked.hub, architectures)) or "No host serves a model.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
