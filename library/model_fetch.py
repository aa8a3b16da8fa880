#!/usr/bin/python
"""The model_fetch module: see `edge_host.download`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.download.actions import run_action
from ansible.module_utils.edge_host.download.job import DownloadError

DOCUMENTATION = r"""
module: model_fetch
short_description: Download the files of a model, from their source or from other machines
description:
  - Starts a program on the machine, which goes on whatever becomes of the connection. What was
    downloaded stays, and the next run goes on from there.
  - The action plugin of the same name shows the progress.
options:
  action:
    description:
      - V(ask) asks the source whether it has the files, and downloads nothing.
      - V(start) starts the program, or joins the one that runs.
      - V(wait) waits until the files are there, for O(seconds) at most.
      - V(stop) ends the program.
    type: str
    choices: [ask, start, wait, stop]
    required: true
  work:
    description:
      - What is to be done, as the filter C(edge_llm_fetch_jobs) or C(edge_llm_distribution_jobs)
        has it; name, files, how, share, peers and port.
    type: dict
    required: true
  folder:
    description: The models folder.
    type: path
    required: true
  program:
    description:
      - The host program, C(path) in the result of C(host_program). Required with O(action=start).
    type: path
    default: ""
  user:
    description: The user id that downloads run as. By default that of this module.
    type: int
  unit:
    description: Whether the program runs as a unit of systemd's.
    type: bool
    default: true
  torrent:
    description: >-
      The torrent of the files, base64, as O(action=wait) has returned it on the machine that has
      them.
    type: str
    default: ""
  token:
    description: The token for the source.
    type: str
    default: ""
  proxy:
    description: The proxy on the way to the source.
    type: str
    default: ""
  authorities:
    description: Certificates (PEM) of the authorities that the source's certificate is checked by.
    type: str
    default: ""
  by:
    description: The operator, whose name others see while the program runs.
    type: str
    default: somebody
  seconds:
    description: How many seconds O(action=wait) waits.
    type: float
    default: 5
author: edge-llm
"""

EXAMPLES = r"""
- name: Start the download
  model_fetch:
    action: start
    folder: /opt/edge-llm/models
    program: "{{ host_program.path }}"
    user: 10010
    work: "{{ work }}"
"""

RETURN = r"""
problem:
  description: Why the source cannot give the files, a phrase; null where it can.
  returned: with O(action=ask)
  type: str
told:
  description: The state of the download; empty in check mode.
  returned: with O(action=wait), and in check mode
  type: dict
  contains:
    state:
      description: begun, asking, fetching, receiving, verifying, done, failed, stopped or gone.
      type: str
    name:
      description: The name of the model's files together.
      type: str
    how:
      description: source, peers or share.
      type: str
    by:
      description: The operator who asked for the download.
      type: str
    done:
      description: Bytes that are on the disk.
      returned: once the program runs
      type: int
    size:
      description: Bytes of all files.
      returned: once the program runs
      type: int
    rate:
      description: Bytes a second, over the last ten seconds.
      returned: once the program runs
      type: int
    left:
      description: Seconds until the end, at this rate; null where nothing moves.
      returned: once the program runs
      type: int
    seconds:
      description: Seconds since the start.
      returned: once the program runs
      type: float
    from:
      description: The sources of the bytes, such as the host of a URL or the fleet.
      returned: once the program runs
      type: list
      elements: str
    pid:
      description: The process of the program.
      returned: once the program runs
      type: int
    file:
      description: The file that is downloaded now.
      returned: in the state fetching
      type: str
    peers:
      description: How many machines are connected.
      returned: in the state receiving
      type: int
    reason:
      description: Why the download ended.
      returned: in the states failed and stopped
      type: str
    torrent:
      description: The torrent of the files, base64, for the machines that download from this one.
      returned: in the state done, of a download from the source
      type: str
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
    except (DownloadError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
