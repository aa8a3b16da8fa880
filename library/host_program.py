#!/usr/bin/python
"""Documentation of the host_program action (action_plugins/host_program.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_program
short_description: Install the host program, which runs on a host by itself
description:
  - The program is one archive, named by its content. A host that has the archive is left alone.
  - Copies the archive with M(ansible.builtin.copy), which also decides what a check run reports.
options:
  folder:
    description: The folder on the host. It is made.
    type: path
    required: true
  owner:
    description: The owner of folder and file. By default the user who connects.
    type: str
author: edge-llm
"""

EXAMPLES = r"""
- name: Install the host program
  host_program:
    folder: /opt/edge-llm/lib
    owner: root
  register: host_program
"""

RETURN = r"""
path:
  description: The program on the host. C(python3 -I PATH) runs it.
  returned: success
  type: str
"""
