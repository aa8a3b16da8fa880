#!/usr/bin/python
"""The image_mirror module: see `edge_host.registry.mirror`."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import REGISTRY_UID
from ansible.module_utils.edge_host.registry.errors import RegistryError
from ansible.module_utils.edge_host.registry.mirror import mirror

DOCUMENTATION = r"""
module: image_mirror
short_description: Copy images of other registries into a registry, under the same digests
description:
  - Copies the images that the registry does not have, with C(skopeo), into a folder, and uploads
    them from there. Both sides verify them by their digests. Where a digest is that of an index,
    the images of all its platforms are copied.
  - C(skopeo) runs as the user of O(user), confined by systemd.
options:
  socket:
    description: >-
      The Unix socket at which the registry takes writes. The module waits until it answers.
    type: path
    required: true
  staging:
    description: A folder that only root can write to, for images on their way. It is emptied.
    type: path
    required: true
  user:
    description: The user id that the registry runs as.
    type: int
    default: 10013
  images:
    description: The images, each with a digest.
    type: list
    elements: dict
    required: true
    suboptions:
      reference:
        description: The reference by which hosts pull the image. Its registry does not matter.
        type: str
        required: true
      outside:
        description: The reference of the image in its own registry.
        type: str
        required: true
  insecure:
    description: Registries that images are copied from without TLS, as C(HOST:PORT).
    type: list
    elements: str
    default: []
author: edge-llm
"""

EXAMPLES = r"""
- name: Copy the missing images
  image_mirror:
    socket: /opt/edge-llm-registry/private/writes/registry.sock
    staging: /opt/edge-llm-registry/staging
    images:
      - reference: "192.0.2.11:5000/docker.io/ollama/ollama@{{ digest }}"
        outside: "docker.io/ollama/ollama:0.34.0@{{ digest }}"
"""

RETURN = r"""
copied:
  description: The images that were copied, as O(images[].outside) names them.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Parse the arguments, copy the images and return the result."""
    image = {
        "reference": {"type": "str", "required": True},
        "outside": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "staging": {"type": "path", "required": True},
            "user": {"type": "int", "default": REGISTRY_UID},
            "images": {"type": "list", "elements": "dict", "options": image, "required": True},
            "insecure": {"type": "list", "elements": "str", "default": []},
        },
    )
    asked = module.params
    try:
        copied = mirror(
            Path(asked["socket"]),
            Path(asked["staging"]),
            asked["user"],
            asked["images"],
            asked["insecure"],
        )
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(copied), copied=copied)


if __name__ == "__main__":
    main()
