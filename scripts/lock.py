#!/usr/bin/env python3
"""`make lock`: asks hubs and registries what the catalogues leave open, and writes it down.

    make lock MODEL=name          revision, size and sha256 of a model's files, into models.yml
    make lock IMAGES=all          digests of images that have none, into engines.yml
                                  (or a part of their name: IMAGES=llama_cpp)

Weights are not downloaded: the hub names their hashes. What could not be resolved is left open, and
said. A locked entry stays as it is; REVISION=main moves a model to what the hub has now.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from edge_fleet.catalogue import read_file
from edge_fleet.settings import VARIABLES

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "LLM_MODELS_TOKEN"  # noqa: S105 - the name of a variable
_MOST = 16 * 1024**2
_SECONDS = 30.0


class Unresolved(Exception):
    """What could not be resolved, and why; a sentence."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class _OwnHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects, without the token where they lead to another host."""

    def redirect_request(
        self, req: urllib.request.Request, *details: Any
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, *details)
        if following is None:
            return None
        before, after = (urllib.parse.urlsplit(each.full_url) for each in (req, following))
        if before.scheme == "https" and after.scheme != "https":
            raise Unresolved(
                f"{req.full_url} is invalid: it redirects to {after.scheme}://{after.netloc}, which"
                " is not encrypted"
            )
        if before[:2] != after[:2]:  # scheme, host and port
            following.remove_header("Authorization")
        return following


def _request(url: str, method: str) -> urllib.request.Request:
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "edge-llm"})  # noqa: S310
    if token := os.environ.get(TOKEN):
        if not url.startswith("https:"):
            raise Unresolved(
                f"{url} is invalid: it is not encrypted, and {TOKEN} would be readable on the way;"
                f" use an address that begins with https://, or unset {TOKEN}"
            )
        request.add_header("Authorization", f"Bearer {token}")
    return request


def head(url: str) -> Mapping[str, str]:
    """The headers of a file's address, names in lower case; of the hub, not of where it leads."""
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(_request(url, "HEAD"), timeout=_SECONDS) as answer:
            status, headers = answer.status, answer.headers
    except urllib.error.HTTPError as error:
        status, headers = error.code, error.headers
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unresolved(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from None
    if status in (401, 403):
        raise Unresolved(f"{url} answered with status {status}; set {TOKEN} to a token")
    if status not in (200, 301, 302, 303, 307, 308):
        raise Unresolved(f"{url} answered with status {status}")
    return {name.lower(): value for name, value in headers.items()}


def _content(url: str) -> bytes:
    """A small file: the hub has hashes of large ones only."""
    opener = urllib.request.build_opener(_OwnHost())
    try:
        with opener.open(_request(url, "GET"), timeout=_SECONDS) as answer:
            content: bytes = answer.read(_MOST + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unresolved(f"{url} could not be read: {error}") from None
    if len(content) > _MOST:
        raise Unresolved(f"{url} has no hash at the hub, and is too large to be read for one")
    return content


def lock_files(hub: str, weights: dict[str, Any], revision: str | None) -> list[str]:
    """Write revision, sizes and hashes into an entry of models.yml; says what it found.

    Raises Unresolved, with nothing written. A value that is there and differs is not replaced
    without `revision`: it may be what the operator trusts.
    """
    asked = revision or weights["revision"] or "main"
    where = f"{hub.rstrip('/')}/{weights['repository']}/resolve"
    found: list[tuple[dict[str, Any], int, str]] = []
    commit = None
    for file in weights["files"]:
        headers = head(f"{where}/{commit or asked}/{file['file']}")
        commit = commit or headers.get("x-repo-commit")
        if not commit:
            raise Unresolved(f"{where}/{asked}/{file['file']} does not say of which revision it is")
        tag, size = headers.get("x-linked-etag", "").strip('"'), headers.get("x-linked-size", "")
        if len(tag) == 64 and size.isdigit():
            found.append((file, int(size), tag))
            continue
        content = _content(f"{where}/{commit}/{file['file']}")
        found.append((file, len(content), hashlib.sha256(content).hexdigest()))
    for file, length, digest in found:
        for name, value in (("size", length), ("sha256", digest)):
            if not revision and file.get(name) not in (None, value):
                raise Unresolved(
                    f"models.yml has {name} {file[name]} for {file['file']}, and {hub} has {value}"
                    f" at {commit}; REVISION={commit} takes the hub's"
                )
    weights["revision"] = commit
    for file, length, digest in found:
        file["size"], file["sha256"] = length, digest
    return [f"{file['file']}: {length:,} bytes, sha256 {digest}" for file, length, digest in found]


def digest_of(reference: str, architecture: str | None) -> str:
    """The digest of an image: of one architecture's, where it is told and the image has several.

    Raises Unresolved.
    """
    if shutil.which("skopeo") is None:
        raise Unresolved(
            "skopeo, which asks registries, is not here; install it (apt-get install skopeo)"
        )
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", f"docker://{reference}"],
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unresolved(f"{reference} could not be resolved: {words[-1] if words else '?'}")
    manifest = json.loads(done.stdout)
    if architecture and "manifests" in manifest:
        for each in manifest["manifests"]:
            platform = each.get("platform") or {}
            if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
                return str(each["digest"])
        raise Unresolved(f"{reference} has no image for {architecture}")
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"


def lock_images(engines: dict[str, Any], architectures: Mapping[str, str], part: str) -> list[str]:
    """Write the digests of images that have none; says what was found and what was not."""
    rows = [engines["api"], engines["registry"], *(engines.get("monitoring") or {}).values()]
    rows += [row for engine in engines["engines"].values() for row in engine["images"]]
    said = []
    for row in rows:
        if row["digest"] or (part != "all" and part not in row["image"]):
            continue
        # Jetsons are arm64, and a row that is for all takes the digest of all.
        machine = row.get("arch") or ("aarch64" if row.get("kind") == "jetson" else None)
        try:
            row["digest"] = digest_of(row["image"], architectures[machine] if machine else None)
            said.append(f"{row['image']}: {row['digest']}")
        except Unresolved as error:
            said.append(f"{row['image']}: left open: {error}")
    return said


def _yaml() -> YAML:
    """Reads and writes the catalogues with their comments and their form."""
    rules = YAML()
    rules.width = 4096
    rules.preserve_quotes = True
    rules.indent(mapping=2, sequence=4, offset=2)
    rules.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return rules


def _invalid(path: Path) -> bool:
    """Whether a catalogue has invalid entries, which are printed."""
    _, problems = read_file(path)
    print("".join(f"{each}\n" for each in problems), end="", file=sys.stderr)
    return bool(problems)


def main(arguments: list[str] | None = None) -> int:
    """Lock what is asked; exit status 1 where something stays open."""
    parser = argparse.ArgumentParser(prog="make lock", description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--revision")
    parser.add_argument("--images")
    parser.add_argument("--hub", default=VARIABLES["llm_models_mirror"].default)
    parser.add_argument("--folder", type=Path, default=ROOT)
    asked = parser.parse_args(arguments)
    if not asked.model and not asked.images:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    rules, status = _yaml(), 0
    if asked.model:
        path = asked.folder / "models.yml"
        if _invalid(path):
            return 2
        catalogue = rules.load(path)
        if asked.model not in catalogue["models"]:
            print(f"models.yml has no {asked.model}; it has: {', '.join(catalogue['models'])}.")
            return 2
        for kind in ("gguf", "hf"):
            weights = catalogue["models"][asked.model].get(kind)
            if not weights:
                continue
            try:
                for line in lock_files(asked.hub, weights, asked.revision):
                    print(f"{asked.model}, {kind}, {line}")
                rules.dump(catalogue, path)
            except Unresolved as error:
                print(f"{asked.model}, {kind}: left open: {error}.", file=sys.stderr)
                status = 1
    if asked.images:
        path = asked.folder / "engines.yml"
        if _invalid(path):
            return 2
        engines = rules.load(path)
        boards = yaml.safe_load((ROOT / "boards.yml").read_text())
        said = lock_images(engines, boards["architectures"], asked.images)
        rules.dump(engines, path)
        print("\n".join(said) or "No image is open.")
        status = status or int(any("left open" in line for line in said))
    return status


if __name__ == "__main__":
    sys.exit(main())
