#!/usr/bin/python
"""The image_mirror module: see `edge_host.registry`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.registry import RegistryError, mirror

DOCUMENTATION = r"""
module: image_mirror
short_description: Copy images of other registries into a registry, under the same digests
description:
  - Copies the images that the registry does not have, with C(skopeo), which verifies them by their
    digests. Where a digest is that of an index, the images of all its platforms are copied.
options:
  registry:
    description: The registry that receives the images, as C(HOST:PORT), reached without TLS.
    type: str
    required: true
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
    registry: 127.0.0.1:5001
    images:
      - reference: "192.0.2.11:5000/docker.io/ollama/ollama@{{ digest }}"
        outside: "docker.io/ollama/ollama:0.34.0@{{ digest }}"
"""

RETURN = r"""
copied:
  description: >-
    The images that were copied, or in check mode would be, as O(images[].outside) names them.
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
            "registry": {"type": "str", "required": True},
            "images": {"type": "list", "elements": "dict", "options": image, "required": True},
            "insecure": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        copied = mirror(check=module.check_mode, **module.params)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(copied), copied=copied)


if __name__ == "__main__":
    main()
