#!/usr/bin/python
"""Documentation of the client_benchmark action (action_plugins/client_benchmark.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: client_benchmark
short_description: Run llm-provider bench on the control machine and show its progress
description:
  - Runs the command against a host's chat API, and shows a line every ten seconds.
  - Requests that fail are a part of the result. The task fails where there is no result.
options:
  command:
    description: The command, without C(--json) and C(--progress).
    type: list
    elements: str
    required: true
  key:
    description: The API key, for the standard input of the command.
    type: str
    required: true
  source:
    description: The folder of the project's packages.
    type: path
    required: true
  seconds:
    description: When the command is ended.
    type: float
    default: 3600
author: edge-llm
"""

EXAMPLES = r"""
- name: Measure the host
  client_benchmark:
    command: [python3, -m, llm_provider, bench, "--url=http://pi-01:8000", --key-file=-]
    key: "{{ key }}"
    source: src
  register: benchmark
"""

RETURN = r"""
bench:
  description: The result, as C(llm-provider bench --json) prints it.
  returned: success
  type: dict
"""
