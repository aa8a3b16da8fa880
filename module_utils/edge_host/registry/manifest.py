"""Manifests of images: read by their digests, since whoever sends them is not trusted."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Callable, Dict, Tuple

from ..json_data import Facts, objects, parse_json
from .errors import RegistryError

LONGEST_MANIFEST = 4 * 1024 * 1024  # as registries have it
_MOST_PLATFORMS = 100
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def check_digest(entry: Facts) -> Tuple[str, str]:
    """Return the digest of a manifest's entry, and its hexadecimal part. Raises RegistryError."""
    found = _DIGEST.fullmatch(str(entry.get("digest")))
    if found is None:
        raise RegistryError(
            f"The image's manifest is invalid: the digest {str(entry.get('digest'))[:100]!r}. Use"
            " an image whose digests are sha256."
        )
    return found[0], found[1]


def parse_manifest(content: bytes, digest: str) -> Facts:
    """Return a manifest's content. Raises RegistryError where its digest is another."""
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != digest:
        raise RegistryError(
            f"The manifest {digest} does not fit: {len(content)} bytes with the digest {found} were"
            " copied. Run this again, and check the registry that the image comes from."
        )
    manifest: Any = parse_json(content.decode("utf-8", "replace"))
    if not isinstance(manifest, dict):
        raise RegistryError(
            f"The manifest {digest} is invalid: it is no JSON object. Use another image."
        )
    known: Dict[str, Any] = manifest
    return known


def measure_image(read: Callable[[str], bytes], digest: str) -> Tuple[int, int]:
    """Return the bytes of an image with all its platforms, and those of its largest blob.

    By its manifests, which `read` returns by their digests. Raises RegistryError.
    """
    manifest = parse_manifest(read(digest), digest)
    manifests = [manifest]
    if "manifests" in manifest:
        digests = {check_digest(each)[0] for each in objects(manifest["manifests"])}
        if len(digests) > _MOST_PLATFORMS:
            raise RegistryError(
                f"The image's manifest is invalid: it has {len(digests)} platforms. Use an image"
                f" with {_MOST_PLATFORMS} at most."
            )
        manifests = [parse_manifest(read(each), each) for each in sorted(digests)]
    # Platforms share blobs.
    sizes: Dict[str, int] = {}
    for each in manifests:
        for blob in [*objects(each.get("layers")), *objects([each.get("config")])]:
            sizes[check_digest(blob)[0]] = _check_size(blob)
    return sum(sizes.values()), max(sizes.values(), default=0)


def _check_size(blob: Facts) -> int:
    size = blob.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RegistryError(
            f"The image's manifest is invalid: the size {str(size)[:100]!r} of a layer. Use another"
            " image."
        )
    return size
