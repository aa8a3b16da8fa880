#!/usr/bin/python
"""Documentation of the fleet_state action (action_plugins/fleet_state.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_state
short_description: Compare all hosts of a play with their plans, from one process
description:
  - Reads all hosts of the play at once, by the connection and become plugins that tasks on them
    use, plans them, compares them with their plans, and verifies the chat APIs of those that are as
    planned. Changes nothing on a host.
  - One remote call for a host that has the program of this version, and another one that sends it
    the program.
  - Keeps the facts of the hosts on the control machine, as the preflight role does.
  - Use it with C(run_once). A host that cannot be compared fails nothing here.
options:
  seconds:
    description:
      - How long a chat API may take to be ready, and for each answer. One that takes longer is
        verified by the verify role, which waits as long as its variable says.
    type: float
    default: 60.0
author: edge-llm
"""

EXAMPLES = r"""
- name: Read all hosts, and verify those that are as planned
  fleet_state:
    seconds: 60
  register: fleet_states
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
hosts:
  description: The hosts of the play.
  returned: success
  type: dict
  contains:
    HOST:
      description: The host of that name.
      type: dict
      contains:
        state:
          description:
            - C(in place), C(differs), C(needed) (in place, and others get weights or images from
              it), C(not read) or C(unreachable).
          type: str
        reasons:
          description: What differs, or why there is no comparison.
          type: list
          elements: str
        calls:
          description: How many commands ran on the host.
          type: int
        row:
          description: The cells of a host in place for the table of the fleet.
          type: list
          elements: str
        notices:
          description: Its known issues, and keys that expire; the lines below the cells.
          type: str
"""
