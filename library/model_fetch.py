#!/usr/bin/python
"""The model_fetch module: see `edge_host.download.fetch`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.download.fetch import fetch_model
from ansible.module_utils.edge_host.download.job import DownloadError

DOCUMENTATION = r"""
module: model_fetch
short_description: Download the files of a model, from their source or from other machines
description:
  - Starts a program on the machine, which is independent of the connection. What was downloaded
    stays, and the next run continues from there.
  - The action plugin of the same name shows the progress.
options:
  state:
    description:
      - V(started) starts the program, or joins the one that runs.
      - V(finished) waits until the files are there. Each call of the module waits for O(timeout)
        at most; the action plugin repeats the call until the download has ended.
      - V(stopped) ends the program. Other machines can then no longer download from this one.
    type: str
    choices: [started, finished, stopped]
    required: true
  job:
    description:
      - The download, as the filter C(edge_llm_distribution_jobs) returns
        it; name, files, mode, port, predecessors, successors and started_between.
    type: dict
    required: true
  folder:
    description: The models folder.
    type: path
    required: true
  program:
    description:
      - The host program, C(path) in the result of C(host_program). Required with O(state=started).
    type: path
    default: ""
  user:
    description: The user id that downloads run as. By default that of this module.
    type: int
  unit:
    description: Whether the program runs as a unit of systemd's.
    type: bool
    default: true
  credentials:
    description:
      - The certificate and the private key for the exchange with other machines, as the filter
        C(edge_llm_distribution_credentials) returns them. The machine keeps them in memory.
    type: dict
    default: {}
  optional:
    description:
      - Whether the task succeeds where the download fails, with O(state=finished). The action
        plugin prints the reason then, and the state in the result is V(failed).
    type: bool
    default: false
  token:
    description: The token for the source.
    type: str
    default: ""
  proxy:
    description: The proxy on the way to the source.
    type: str
    default: ""
  ca_certificates:
    description: Certificates (PEM) of authorities that sign for the source, beside the system's.
    type: str
    default: ""
  operator:
    description: The person who downloads, whose name others see while the program runs.
    type: str
    default: somebody
  timeout:
    description: How many seconds a call of the module waits with O(state=finished).
    type: float
    default: 5
author: edge-llm
"""

EXAMPLES = r"""
- name: Start the download
  model_fetch:
    state: started
    job: "{{ job }}"
    folder: /opt/edge-llm/models
    program: "{{ host_program.path }}"
    user: 10012
    operator: alice@laptop

- name: Wait for the download
  model_fetch:
    state: finished
    job: "{{ job }}"
    folder: /opt/edge-llm/models
"""

RETURN = r"""
download:
  description: The state of the download; empty in check mode.
  returned: with O(state=finished), and in check mode
  type: dict
  contains:
    state:
      description: begun, asking, fetching, receiving, verifying, done, failed, stopped or gone.
      type: str
    name:
      description: The name of the model's files together.
      type: str
    mode:
      description: >-
        source (from the source), peers (from other machines) or share (to other machines).
      type: str
    operator:
      description: The person who started the download.
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
    seconds_left:
      description: Seconds until the end, at this rate; null where nothing is received.
      returned: once the program runs
      type: int
    seconds:
      description: Seconds since the start.
      returned: once the program runs
      type: float
    sources:
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
      returned: in the states fetching and receiving
      type: str
    reason:
      description: Why the download ended.
      returned: in the states failed and stopped
      type: str
    notice:
      description: What the operator should know, such as that no other machine can download.
      returned: once the program runs
      type: str
    distribution:
      description: >-
        The time at which the exchange with other machines was planned, in seconds since 1970; 0
        without one.
      returned: always
      type: float
"""


def main() -> None:
    """Parse the arguments, start, follow or stop the download, and return the result."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["started", "finished", "stopped"],
                "required": True,
            },
            "job": {"type": "dict", "required": True},
            "folder": {"type": "path", "required": True},
            "program": {"type": "path", "default": ""},
            "user": {"type": "int"},
            "unit": {"type": "bool", "default": True},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "optional": {"type": "bool", "default": False},
            "token": {"type": "str", "default": "", "no_log": True},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "ca_certificates": {"type": "str", "default": ""},
            "operator": {"type": "str", "default": "somebody"},
            "timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    try:
        result = fetch_model(module.params, module.check_mode)
    except (DownloadError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
