#!/usr/bin/python
"""The image_mirror module: images into a registry, each from outside once, by their digests."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: image_mirror
short_description: Have a registry hold images of other registries, under the same digests
description:
  - An image that the registry has is not asked for outside.
  - An image is copied with C(skopeo), which checks all of it against the digest. Where the digest
    is that of an index, the images of all its platforms are copied with it.
options:
  registry:
    description: The registry that takes them, as C(HOST:PORT), reached without TLS.
    type: str
    required: true
  images:
    description: The images.
    type: list
    elements: dict
    required: true
    suboptions:
      reference:
        description: As others will pull it, C(HOST:PORT/NAME@DIGEST); its host does not matter.
        type: str
        required: true
      outside:
        description: Where it is outside, C(NAME@DIGEST).
        type: str
        required: true
  insecure:
    description: Registries outside that are reached without TLS.
    type: list
    elements: str
    default: []
author: edge-llm
"""

EXAMPLES = r"""
- name: Copy what is not there
  image_mirror:
    registry: 127.0.0.1:5001
    images:
      - reference: 192.0.2.11:5000/docker.io/ollama/ollama@sha256:684d8674...
        outside: docker.io/ollama/ollama:0.34.0@sha256:684d8674...
"""

RETURN = r"""
copied:
  description: What was copied, as it is named outside.
  returned: success
  type: list
  elements: str
"""

_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)


def inside(reference: str) -> tuple[str, str]:
    """(repository, digest) of a reference, without its registry."""
    name, _, digest = reference.partition("@")
    return name.partition("/")[2], digest


def untagged(outside: str) -> str:
    """A reference by digest alone: skopeo takes no tag beside one."""
    name, _, digest = outside.partition("@")
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}@{digest}"


def has(registry: str, repository: str, digest: str) -> bool:
    """Whether a registry has a manifest. Raises OSError where it does not answer."""
    request = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{digest}",
        method="HEAD",
        headers={"Accept": ", ".join(_MANIFESTS)},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise OSError(f"{registry} answered with status {error.code}") from error


def copy_words(registry: str, image: dict[str, str], insecure: list[str]) -> list[str]:
    """The command that copies an image."""
    repository, digest = inside(image["reference"])
    outside = untagged(image["outside"])
    verified = str(outside.partition("/")[0] not in insecure).lower()
    return [
        *("skopeo", "copy", "--quiet", "--retry-times", "3", "--multi-arch", "all"),
        *("--preserve-digests", f"--src-tls-verify={verified}", "--dest-tls-verify=false"),
        f"docker://{outside}",
        f"docker://{registry}/{repository}:{digest.replace('sha256:', '')[:12]}",
    ]


def main() -> None:
    """Copy, and tell Ansible what."""
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "str", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "insecure": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    copied = []
    try:
        for image in asked["images"]:
            if has(asked["registry"], *inside(image["reference"])) or image["outside"] in copied:
                continue
            copied.append(image["outside"])
            if module.check_mode:
                continue
            words = copy_words(asked["registry"], image, asked["insecure"])
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                module.fail_json(
                    msg=f"{image['outside']} could not be brought into the registry:"
                    f" {done.stderr.strip()}"
                )
    except OSError as error:
        module.fail_json(msg=f"the registry at {asked['registry']} does not answer: {error}")
    module.exit_json(changed=bool(copied), copied=copied)


if __name__ == "__main__":
    main()
