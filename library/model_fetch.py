#!/usr/bin/python
"""The model_fetch module: see `edge_host.download`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.download.actions import run_action
from ansible.module_utils.edge_host.download.job import Failure

DOCUMENTATION = r"""
module: model_fetch
short_description: Have a model's files brought to a machine, from their source or from others
description:
  - The work itself is done by a program that this starts there, and that goes on whatever becomes
    of the connection. What has come stays, and the next run goes on from there.
  - The action plugin of the same name shows how far it is.
options:
  action:
    description:
      - V(ask) asks the source whether it has the very files, without a byte of them.
      - V(start) starts the program, or joins the one that runs.
      - V(wait) waits for it to have done its work, for O(seconds) at most.
      - V(stop) ends it.
    type: str
    choices: [ask, start, wait, stop]
    required: true
  work:
    description:
      - What is to be done, as the filter C(edge_llm_bring) or C(edge_llm_hand_on) has it; name,
        files, how, share, peers and port.
    type: dict
    required: true
  folder:
    description: The models folder.
    type: path
    required: true
  program:
    description:
      - The program that downloads, as the host_program action has put it there. V(start) needs it.
    type: path
    default: ""
  user:
    description: The user id by which files are received. This module's own, where left out.
    type: int
  unit:
    description: Whether systemd runs the program.
    type: bool
    default: true
  torrent:
    description: Of the files, base64, as V(wait) has returned it on the machine that has them.
    type: str
    default: ""
  token:
    description: The token that the source asks for.
    type: str
    default: ""
  proxy:
    description: The proxy by which the source is reached.
    type: str
    default: ""
  authorities:
    description: Certificates (PEM) of authorities that vouch for the source.
    type: str
    default: ""
  by:
    description: Who asks, for whoever comes meanwhile.
    type: str
    default: somebody
  seconds:
    description: How long V(wait) waits.
    type: float
    default: 5
author: edge-llm
"""

EXAMPLES = r"""
- name: Bring the weights from their source
  model_fetch:
    action: start
    folder: /opt/edge-llm/models
    program: "{{ host_program.path }}"
    user: 10010
    work: "{{ work }}"
"""

RETURN = r"""
problem:
  description: Of V(ask); why the source cannot give the files, or null.
  returned: success
  type: str
told:
  description: >-
    Of V(wait); state (begun, fetching, receiving, verifying, done, failed, stopped or gone), done
    and size (bytes), rate (bytes a second), left and seconds, from (who gives it), reason, torrent.
  returned: success
  type: dict
"""


def main() -> None:
    """Parse the arguments, act and return the result."""
    module = AnsibleModule(
        argument_spec={
            "action": {
                "type": "str",
                "choices": ["ask", "start", "wait", "stop"],
                "required": True,
            },
            "work": {"type": "dict", "required": True},
            "folder": {"type": "path", "required": True},
            "program": {"type": "path", "default": ""},
            "user": {"type": "int"},
            "unit": {"type": "bool", "default": True},
            "torrent": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "authorities": {"type": "str", "default": ""},
            "by": {"type": "str", "default": "somebody"},
            "seconds": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    try:
        result = run_action(module.params, module.check_mode)
    except (Failure, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
