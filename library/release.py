#!/usr/bin/python
"""The release module: see `edge_host.release.deploy`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import ROOT
from ansible.module_utils.edge_host.release.deploy import deploy
from ansible.module_utils.edge_host.release.errors import ReleaseError

DOCUMENTATION = r"""
module: release
short_description: Switch a host to a release, and roll back where the verification fails
description:
  - Stages a release, switches to it, verifies it, and commits it; or rolls back to the release
    before, and fails.
  - The engine's key is generated where it is missing. Folders and keys of a host of an earlier
    version get their owners, as by C(host_folders).
  - The change runs on the host in a unit of systemd, so that it ends even if the connection is
    lost.
  - In check mode reports whether anything would change, and how the files would differ.
options:
  root:
    description: The folder of the deployment.
    type: path
    default: /opt/edge-llm
  action:
    description:
      - V(deploy) switches to a new release, of the files and O(metadata).
      - V(rollback) repeats the release O(to).
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
  metadata:
    description: >-
      What release.json records beside the files; plan, start_timeout, drain_timeout and swap.
    type: dict
    default: {}
  to:
    description: The number of the release to roll back to. By default the previous one.
    type: int
  expected_release:
    description: >-
      The number of the release that the host ran when its facts were gathered; 0 for none. Fails
      where the host runs another one now.
    type: int
  altered:
    description:
      - Parts of the release whose containers were changed by hand. They are replaced, even where
        the release is in place. Without effect for a rollback.
    type: list
    elements: str
    choices: [engine, api]
    default: []
  host:
    description: The name of the host, for messages.
    type: str
    required: true
  operator:
    description: The person who changes the host; other runs on the same host name this person.
    type: str
    required: true
  program:
    description: The host program, C(path) in the result of C(host_program).
    type: path
    required: true
author: edge-llm
"""

EXAMPLES = r"""
- name: Roll back
  release:
    host: jetson-01
    action: rollback
    expected_release: 7
    operator: alice@laptop
    program: "{{ host_program.path }}"
"""

RETURN = r"""
result:
  description: The result of the change, which the history of the host has too.
  returned: success, outside of check mode
  type: dict
  contains:
    action:
      description: deploy or rollback.
      type: str
    at:
      description: The time of the end, in UTC (RFC 3339).
      type: str
    operator:
      description: The person who made the change.
      type: str
    from:
      description: The number of the release before; null where there was none.
      type: int
    to:
      description: The number of the release that the host runs now.
      type: int
    rolled_back_to:
      description: The number of the release that a rollback returned to.
      returned: after a rollback
      type: int
    provider:
      description: The engine of the release.
      type: str
    model:
      description: The model of the release.
      type: str
    changed_parts:
      description: The parts that changed; engine, api.
      type: list
      elements: str
    side_by_side:
      description: Whether the new engine was loaded without stopping another one before.
      type: bool
    pause_seconds:
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
    """Parse the arguments, switch the host and return the result."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "action": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
            "compose": {"type": "str", "default": ""},
            "env": {"type": "str", "default": ""},
            "engine": {"type": "str", "default": ""},
            "metadata": {"type": "dict", "default": {}},
            "to": {"type": "int"},
            "expected_release": {"type": "int"},
            "altered": {
                "type": "list",
                "elements": "str",
                "choices": ["engine", "api"],
                "default": [],
            },
            "host": {"type": "str", "required": True},
            "operator": {"type": "str", "required": True},
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
