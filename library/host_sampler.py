#!/usr/bin/python
"""The host_sampler module: see `edge_host.benchmark.sampler`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.benchmark.sampler import SamplerError, sample, stop

DOCUMENTATION = r"""
module: host_sampler
short_description: Read a board's sensors while a benchmark runs
description:
  - With O(state=sampling) reads temperature, clocks, memory, power and GPU of the board once a
    second, until the same name is stopped, another sampler starts, or O(seconds) have passed. Run
    it with C(async).
  - With O(state=stopped) ends that sampler, and returns what it has read.
  - Changes nothing on the host but files in /run/edge-llm-benchmark.
options:
  name:
    description: The name of the benchmark.
    type: str
    required: true
  state:
    description: Whether the sampler is to run or to end.
    type: str
    required: true
    choices: [sampling, stopped]
  seconds:
    description: When a sampler ends that nobody stops.
    type: float
    default: 1800
  caller_time:
    description:
      - The time of the control machine when it stops the sampler, in seconds since 1970. The
        samples get times of that clock.
    type: float
author: edge-llm
"""

EXAMPLES = r"""
- name: Read the sensors
  host_sampler:
    name: run-1
    state: sampling
  async: 1800
  poll: 0

- name: Stop reading the sensors
  host_sampler:
    name: run-1
    state: stopped
    caller_time: 1796079600.0
  register: sampler
"""

RETURN = r"""
readings:
  description: What the sampler has read.
  returned: success
  type: dict
  contains:
    name: {type: str, description: The name of the benchmark.}
    slowdowns:
      description: Why the hardware has lowered its clocks meanwhile.
      type: list
      elements: str
    samples:
      description: A sample for each second; null for what the board does not tell.
      type: list
      elements: dict
      contains:
        at: {type: float, description: "The time, in seconds since 1970."}
        watts: {type: float, description: "The power, or null."}
        watts_of: {type: str, description: "What the power is of, or null."}
        gpu_percent: {type: float, description: "How busy the GPU is, or null."}
        gpu_memory: {type: int, description: "Bytes of cards' memory in use, or null."}
        memory_used: {type: int, description: "Bytes of the host's memory in use, or null."}
        temperature: {type: float, description: "The highest, in degrees Celsius, or null."}
        clocks:
          description: Clocks by their names.
          type: dict
          contains:
            NAME: {type: int, description: The clock NAME in MHz.}
        rails:
          description: The power of each rail that is measured, by its name.
          type: dict
          contains:
            NAME: {type: float, description: The watts of the rail NAME.}
        throttling:
          description: The reasons to be slowed down that the board can tell.
          type: dict
          contains:
            REASON: {type: bool, description: Whether REASON holds at this moment.}
"""


def main() -> None:
    """Parse the arguments, sample or stop, and return the readings."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["sampling", "stopped"]},
            "seconds": {"type": "float", "default": 1800},
            "caller_time": {"type": "float"},
        },
        required_if=[("state", "stopped", ["caller_time"])],
        supports_check_mode=True,
    )
    name = module.params["name"]
    try:
        if module.params["state"] == "sampling":
            readings = sample(name, module.params["seconds"])
        else:
            readings = stop(name, module.params["caller_time"])
    except (SamplerError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, readings=readings)


if __name__ == "__main__":
    main()
