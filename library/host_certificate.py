#!/usr/bin/python
"""The host_certificate module: see `edge_host.certificate`."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.certificate import (
    install_certificate,
    wait_until_served,
)
from ansible.module_utils.edge_host.constants import API_PORT, ROOT

DOCUMENTATION = r"""
module: host_certificate
short_description: Give the chat API of a host its certificate and private key
description:
  - Writes C(secrets/tls/certificate.pem) and C(secrets/tls/key.pem) below O(root).
  - The chat API may read the files, and nobody but root may write them.
  - Both are replaced in one step, which survives a power cut. The chat API reads them again without
    a restart, within a second. Where it serves HTTPS, the module waits for that.
options:
  root:
    description: >-
      The folder of the deployment on the host. Its folder C(secrets) must exist, as C(host_folders)
      makes it.
    type: path
    default: /opt/edge-llm
  certificate:
    description: The certificate, followed by those of its issuers, in PEM format.
    type: str
    required: true
  key:
    description: Its private key, in PEM format.
    type: str
    required: true
  address:
    description: The address of the host at which the chat API listens.
    type: str
    default: 127.0.0.1
  timeout:
    description:
      - Seconds to wait until the chat API serves with a changed certificate; 0 for no wait.
    type: float
    default: 10
author: edge-llm
"""

EXAMPLES = r"""
- name: Write the certificate
  host_certificate:
    certificate: "{{ pair.certificate }}"
    key: "{{ pair.key }}"
"""

RETURN = r"""
folder:
  description: The folder with both files.
  returned: success
  type: str
served:
  description: >-
    Whether the chat API was seen to serve with the certificate. It is not asked where nothing has
    changed, and in check mode.
  returned: success
  type: bool
"""


def main() -> None:
    """Install the files and tell Ansible whether they have changed."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "address": {"type": "str", "default": "127.0.0.1"},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    asked = module.params
    secrets = Path(asked["root"], "secrets")
    try:
        changed = install_certificate(
            secrets, asked["certificate"], asked["key"], module.check_mode
        )
    except OSError as error:
        module.fail_json(msg=f"The certificate cannot be written: {error}.")
    served = (
        changed
        and not module.check_mode
        and asked["timeout"] > 0
        and wait_until_served(asked["certificate"], API_PORT, asked["timeout"], asked["address"])
    )
    module.exit_json(changed=changed, folder=str(secrets / "tls"), served=served)


if __name__ == "__main__":
    main()
