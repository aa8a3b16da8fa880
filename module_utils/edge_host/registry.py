"""Copies images of other registries into one, under the same digests."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from typing import Dict, List, Sequence

from .image_ref import ImageRef

_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)


class RegistryError(Exception):
    """Why an image is not in the registry; a sentence."""


def mirror(
    registry: str, images: Sequence[Dict[str, str]], insecure: Sequence[str], check: bool
) -> List[str]:
    """Copy the images that a registry does not have; return their upstream references.

    registry: HOST:PORT, reached without TLS; images: each a `reference` (as hosts pull it; its
    registry does not matter) and where it is `outside`; insecure: upstream registries reached
    without TLS; check: copy nothing. Raises RegistryError.
    """
    copied: List[str] = []
    for image in images:
        try:
            wanted, upstream = _pinned(image["reference"]), _pinned(image["outside"])
            if image["outside"] in copied or has(registry, wanted):
                continue
        except ValueError as error:
            raise RegistryError(str(error)) from error
        except OSError as error:
            raise RegistryError(
                f"The registry at {registry} does not answer: {error}."
                " Check its container with `docker ps` and `docker logs`."
            ) from error
        copied.append(image["outside"])
        if check:
            continue
        command = copy_command(registry, wanted, upstream, insecure)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RegistryError(f"skopeo is missing: {error}. Install it.") from error
        if done.returncode:
            raise RegistryError(
                f"The image {image['outside']} could not be copied into the registry:"
                f" {done.stderr.strip()}"
            )
    return copied


def _pinned(text: str) -> ImageRef:
    """A reference that has a digest. Raises ValueError for any other."""
    found = ImageRef.parse(text)
    if found.digest is None:
        raise ValueError(f"The image reference has no digest: {text!r}. Use NAME@sha256:DIGEST.")
    return found


def has(registry: str, image: ImageRef) -> bool:
    """Whether a registry has an image, by its digest. Raises OSError where it does not answer."""
    request = urllib.request.Request(
        f"http://{registry}/v2/{image.repository}/manifests/{image.digest}",
        method="HEAD",
        headers={"Accept": ", ".join(_MANIFESTS)},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http, see above
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise OSError(f"status {error.code}") from error


def copy_command(
    registry: str, wanted: ImageRef, upstream: ImageRef, insecure: Sequence[str]
) -> List[str]:
    """The command that copies an image with all its platforms."""
    verified = str(upstream.registry not in insecure).lower()
    # skopeo takes no tag beside a digest; a registry takes a manifest by a tag that nobody uses.
    target = ImageRef(registry, wanted.repository, str(wanted.digest)[7:19])
    return [
        *("skopeo", "copy", "--quiet", "--retry-times", "3", "--multi-arch", "all"),
        *("--preserve-digests", f"--src-tls-verify={verified}", "--dest-tls-verify=false"),
        f"docker://{upstream.without_tag()}",
        f"docker://{target}",
    ]
