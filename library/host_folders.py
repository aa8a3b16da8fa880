#!/usr/bin/python
"""The host_folders module: see `edge_host.folders`."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.folders import ensure_folders, ensure_registry_folders

DOCUMENTATION = r"""
module: host_folders
short_description: Make the folders of a deployment or of a registry, and give them to their owners
description:
  - Every job on a host has a user of its own, and the folder of the keys is root's. On a host of an
    earlier version, where one user had all, files change their owners; what runs goes on.
  - Follows no link. Fails where a key is a link, or has another owner than the project's users, and
    leaves that as it is.
options:
  root:
    description: The folder of the deployment, or of the registry.
    type: path
    required: true
  of:
    description: Whose folders these are.
    type: str
    choices: [deployment, registry]
    default: deployment
author: edge-llm
"""

EXAMPLES = r"""
- name: Make the folders of the deployment
  host_folders:
    root: /opt/edge-llm
"""

RETURN = r"""
paths:
  description: >-
    The folders that were made, and the files and folders with another owner, group or mode now; in
    check mode those that would be.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Parse the arguments, set the owners and return the paths that changed."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "of": {
                "type": "str",
                "choices": ["deployment", "registry"],
                "default": "deployment",
            },
        },
        supports_check_mode=True,
    )
    asked = module.params
    ensure = ensure_registry_folders if asked["of"] == "registry" else ensure_folders
    try:
        paths = ensure(Path(asked["root"]), module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(changed=bool(paths), paths=paths)


if __name__ == "__main__":
    main()
