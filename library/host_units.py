#!/usr/bin/python
"""The host_units module: see `edge_host.release.installation` and `edge_host.unit_files`."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import ROOT
from ansible.module_utils.edge_host.errors import ReleaseError
from ansible.module_utils.edge_host.release.host import Host
from ansible.module_utils.edge_host.release.installation import (
    build_host_units,
    find_differences,
    install_units,
)
from ansible.module_utils.edge_host.systemd import UNITS
from ansible.module_utils.edge_host.unit_files.clocks import (
    CLOCKS_TEXT,
    CLOCKS_UNIT,
    find_clocks_difference,
    install_clocks,
)
from ansible.module_utils.edge_host.unit_files.installed import diff_units

DOCUMENTATION = r"""
module: host_units
short_description: Install the units of systemd that stay on a host
description:
  - Each unit is written as the version of this project on the control machine has it, and enabled.
    A host that has the units so is left alone.
  - Those of a deployment hold the ports, and recover the host. The host goes on with its release. A
    changed service is restarted, which no client notices; changes of the socket unit take effect at
    the next boot, those of its address at once. Programs of other versions are removed, except
    those that run. The host is locked meanwhile; the module fails where somebody changes the host.
  - That of the clocks sets a Jetson's clocks to their highest, at once and at every boot.
options:
  of:
    description: Whose units these are.
    type: str
    choices: [deployment, clocks]
    default: deployment
  host:
    description: The name of the host, for messages.
    type: str
    required: true
  root:
    description: The folder of the deployment.
    type: path
    default: /opt/edge-llm
  operator:
    description:
      - The person who changes the host; other runs on the same host name this person.
      - Required for a deployment.
    type: str
  program:
    description:
      - The host program, C(path) in the result of C(host_program).
      - Required for a deployment.
    type: path
author: edge-llm
"""

EXAMPLES = r"""
- name: Install the units
  host_units:
    host: jetson-01
    operator: alice@laptop
    program: "{{ host_program.path }}"
"""

# In upper case stands a name that differs from host to host.
RETURN = r"""
differences:
  description: >-
    What was not as this version installs it before, or, in check mode, is not.
  returned: success
  type: dict
  contains:
    NAME:
      description: >-
        Of the program or the unit file NAME; missing, different, disabled or of another version.
      type: str
"""


def main() -> None:
    """Parse the arguments, install the units and return the differences."""
    module = AnsibleModule(
        argument_spec={
            "of": {"type": "str", "choices": ["deployment", "clocks"], "default": "deployment"},
            "host": {"type": "str", "required": True},
            "root": {"type": "path", "default": ROOT},
            "operator": {"type": "str"},
            "program": {"type": "path"},
        },
        required_if=[("of", "deployment", ("operator", "program"))],
        supports_check_mode=True,
    )
    asked = module.params
    try:
        if asked["of"] == "clocks":
            differences = find_clocks_difference()
            diff = diff_units({CLOCKS_UNIT: CLOCKS_TEXT}, UNITS)
            if differences and not module.check_mode:
                install_clocks()
        else:
            host, program = Host(asked["root"]), Path(asked["program"])
            differences = find_differences(host, program)
            diff = diff_units(build_host_units(host, program), UNITS)
            if differences and not module.check_mode:
                install_units(host, program, asked["operator"])
    except (OSError, ReleaseError) as error:
        module.fail_json(msg=f"{asked['host']}: {error}.")
    shown = {"diff": diff} if diff and module._diff else {}
    module.exit_json(changed=bool(differences), differences=differences, **shown)


if __name__ == "__main__":
    main()
