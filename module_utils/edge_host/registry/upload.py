"""Uploads an image that skopeo has copied into a folder (its `dir:` layout) to a registry.

The folder belongs to the user that skopeo runs as, so nothing in it is trusted: no link is
followed, names are made from digests that have the form of one, and manifests are those whose
digests are known. The registry verifies the digests of all else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import List, Tuple

from ..json_data import Facts, objects
from .client import RegistryClient
from .errors import RegistryError
from .manifest import LONGEST_MANIFEST, check_digest, parse_manifest

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def upload_folder(client: RegistryClient, repository: str, digest: str, folder: Path) -> None:
    """Upload the image with a digest, and the images of all platforms where it is an index.

    Each file is removed once it is in the registry. Raises RegistryError, OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _upload_image(client, repository, digest, descriptor)
    finally:
        os.close(descriptor)


def _upload_image(client: RegistryClient, repository: str, digest: str, folder: int) -> None:
    content, manifest = _read_manifest(folder, "manifest.json", digest)
    for each in objects(manifest.get("manifests")):
        _, name = check_digest(each)
        inner, found = _read_manifest(folder, f"{name}.manifest.json", f"sha256:{name}")
        _upload_blobs(client, repository, found, folder)
        client.upload_manifest(repository, f"sha256:{name}", _media_type(found), inner)
    if "manifests" not in manifest:
        _upload_blobs(client, repository, manifest, folder)
    client.upload_manifest(repository, digest, _media_type(manifest), content)


def _upload_blobs(client: RegistryClient, repository: str, manifest: Facts, folder: int) -> None:
    """Upload the layers and the configuration of an image, as far as the registry lacks them."""
    layers: List[Facts] = objects(manifest.get("layers"))
    config = manifest.get("config")
    if not isinstance(config, dict):
        raise RegistryError(
            "The image's manifest is invalid: it has no configuration. Use an image whose manifest"
            " is of Docker's schema 2 or of OCI."
        )
    for blob in [*layers, config]:
        digest, name = check_digest(blob)
        if client.has_blob(repository, digest):
            continue
        # A layer that is to be had at other addresses only is in no registry.
        if blob.get("urls") and not _exists(folder, name):
            continue
        file, size = _open_file(folder, name)
        with os.fdopen(file, "rb") as content:
            client.upload_blob(repository, digest, content, size)
        os.unlink(name, dir_fd=folder)


def _media_type(manifest: Facts) -> str:
    """The type by which a registry reads a manifest; OCI's may leave it out."""
    return str(manifest.get("mediaType") or (_INDEX if "manifests" in manifest else _MANIFEST))


def _read_manifest(folder: int, name: str, digest: str) -> Tuple[bytes, Facts]:
    """A manifest's bytes and its content. Raises RegistryError where the digest is another."""
    file, _ = _open_file(folder, name)
    with os.fdopen(file, "rb") as stream:
        content = stream.read(LONGEST_MANIFEST + 1)
    return content, parse_manifest(content, digest)


def _open_file(folder: int, name: str) -> Tuple[int, int]:
    """Open a regular file of the folder: its descriptor and size. No link is followed."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise RegistryError(
            f"The copied image is invalid: the file {name} cannot be opened ({error.strerror})."
            " Run this again."
        ) from error
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise RegistryError(
            f"The copied image is invalid: {name} is no regular file. Run this again."
        )
    return file, status.st_size


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
