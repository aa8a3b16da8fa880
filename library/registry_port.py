#!/usr/bin/python
"""The registry_port module: see `edge_host.registry.port`."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.registry.errors import RegistryError
from ansible.module_utils.edge_host.registry.port import (
    close_port,
    installed_units,
    is_open,
    open_port,
    remove_units,
    resolve,
)

DOCUMENTATION = r"""
module: registry_port
short_description: Open and close the port of a fleet's image registry
description:
  - Installs the units C(edge-llm-registry.socket) and C(edge-llm-registry.service), which pass
    connections to port 5000 on to the Unix socket from which the registry can be read, and starts
    them. Connections of other addresses than O(hosts) are ended at once.
  - The port closes after O(seconds) by itself.
options:
  state:
    description: The port is open, or closed; or the units are gone.
    type: str
    choices: [open, closed, absent]
    required: true
  program:
    description: The archive of C(edge_host) on the host. Required where O(state=open).
    type: path
  socket:
    description: The Unix socket from which the registry is read. Required where O(state=open).
    type: path
  hosts:
    description: Addresses or names of the hosts that may connect.
    type: list
    elements: str
    default: []
  seconds:
    description: The time limit.
    type: int
    default: 7200
author: edge-llm
"""

EXAMPLES = r"""
- name: Open the port for one host
  registry_port:
    state: open
    program: /opt/edge-llm/lib/edge_host-HASH.pyz
    socket: /opt/edge-llm-registry/reads/registry.sock
    hosts: [192.0.2.12]
"""

RETURN = r"""
addresses:
  description: The addresses of O(hosts).
  returned: success
  type: list
  elements: str
unknown:
  description: The names among O(hosts) that the host cannot resolve.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Parse the arguments, open or close the port and return the result."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["open", "closed", "absent"], "required": True},
            "program": {"type": "path"},
            "socket": {"type": "path"},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 7200},
        },
        required_if=[("state", "open", ("program", "socket"))],
        supports_check_mode=True,
    )
    asked = module.params
    state = asked["state"]
    addresses, unknown = resolve(asked["hosts"])
    for name in unknown:
        module.warn(
            f"The address of {name} is missing: this host cannot resolve the name, so {name} cannot"
            " pull images from here. Set board_address of that host to its IP address."
        )
    try:
        if module.check_mode:
            changed = {"open": True, "closed": is_open(), "absent": bool(installed_units())}[state]
        elif state == "open":
            open_port(Path(asked["program"]), Path(asked["socket"]), addresses, asked["seconds"])
            changed = True
        else:
            changed = close_port() if state == "closed" else remove_units()
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, addresses=addresses, unknown=unknown)


if __name__ == "__main__":
    main()
