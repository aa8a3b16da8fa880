#!/usr/bin/python
"""Documentation of the fleet_host action (action_plugins/fleet_host.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_host
short_description: Give a host the state that fleet_state found
description:
  - Fails as unreachable for a host that did not answer, without another attempt to connect.
    Connects to no host.
options:
  state:
    description: The state of the host.
    type: str
    required: true
  reasons:
    description: What differs, or why the host is unreachable.
    type: list
    elements: str
    default: []
author: edge-llm
"""

EXAMPLES = r"""
- name: Note the state of the host
  fleet_host:
    state: "{{ fleet_states.hosts[inventory_hostname].state }}"
    reasons: "{{ fleet_states.hosts[inventory_hostname].reasons }}"
"""

RETURN = r"""
msg:
  description: The state, and the reasons.
  returned: success
  type: str
"""
