#!/usr/bin/python
"""The release module: see `edge_host.release.deploy`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import ROOT
from ansible.module_utils.edge_host.release.deploy import deploy
from ansible.module_utils.edge_host.release.errors import ReleaseError

DOCUMENTATION = r"""
module: release
short_description: Change a host over to a release, and back where it is not proven
description:
  - Stages a release, changes over to it, proves it, and commits it; or puts the one before back,
    and fails.
  - The change itself runs on the host as a unit of systemd's, so that it comes to an end
    whatever becomes of the connection.
  - In check mode tells whether anything would change, and what of the files.
options:
  root:
    description: The deployment's folder.
    type: path
    default: /opt/edge-llm
  action:
    description:
      - V(deploy) changes to what the other options say.
      - V(rollback) changes to what O(to) was.
    type: str
    choices: [deploy, rollback]
    default: deploy
  compose:
    description: The text of docker-compose.yml, with a token for the slot of each part.
    type: str
    default: ""
  env:
    description: The text of .env.
    type: str
    default: ""
  engine:
    description: The text of the file by which the chat API finds its engine.
    type: str
    default: ""
  about:
    description: >-
      What else a release says of itself; plan, start_timeout, drain_timeout and swap.
    type: dict
    default: {}
  to:
    description: The number of the release to go back to. The previous one, where this is left out.
    type: int
  expected:
    description: The number of the release that the host ran when it was looked at; 0 for none.
    type: int
  host:
    description: The host's name, for the sentences.
    type: str
    required: true
  owner:
    description: >-
      User id of the containers' user, who reads the engine's key; the key is made where there is
      none.
    type: int
    required: true
  by:
    description: Who changes the host, for whoever comes meanwhile.
    type: str
    required: true
  program:
    description: The program that makes the change, as the host_program action has put it there.
    type: path
    required: true
author: edge-llm
"""

EXAMPLES = r"""
- name: Go back
  release:
    host: jetson-01
    owner: 10010
    action: rollback
    expected: 7
    by: alice@laptop
    program: "{{ host_program.path }}"
"""

RETURN = r"""
told:
  description: The result of the change, as in the history of the host.
  returned: success, outside of check mode
  type: dict
  contains:
    action:
      description: deploy or rollback.
      type: str
    at:
      description: The time of the end, in UTC (RFC 3339).
      type: str
    by:
      description: The operator who asked for the change.
      type: str
    from:
      description: The number of the release before; null where there was none.
      type: int
    to:
      description: The number of the release that the host runs now.
      type: int
    as:
      description: The number of the release that a rollback returned to.
      returned: after a rollback
      type: int
    provider:
      description: The engine of the release.
      type: str
    model:
      description: The model of the release.
      type: str
    parts:
      description: The parts that changed; engine, api.
      type: list
      elements: str
    beside:
      description: Whether both engines were loaded at once.
      type: bool
    pause:
      description: For how many seconds clients waited.
      type: float
    seconds:
      description: The duration of the change.
      type: float
    steps:
      description: Name of each step to its duration in seconds.
      type: dict
    outcome:
      description: Always committed; for any other outcome the module fails.
      type: str
"""


def main() -> None:
    """Change over, and tell Ansible."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "action": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
            "compose": {"type": "str", "default": ""},
            "env": {"type": "str", "default": ""},
            "engine": {"type": "str", "default": ""},
            "about": {"type": "dict", "default": {}},
            "to": {"type": "int"},
            "expected": {"type": "int"},
            "host": {"type": "str", "required": True},
            "owner": {"type": "int", "required": True},
            "by": {"type": "str", "required": True},
            "program": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = deploy(module.params, module.check_mode)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    if not module._diff:
        result.pop("diff")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
