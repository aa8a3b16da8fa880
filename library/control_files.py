#!/usr/bin/python
"""Documentation of the control_files action (action_plugins/control_files.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: control_files
short_description: Write several small files on the control machine in one call
description:
  - Writes the files whose content or mode differs. A check run writes gathered facts alone.
  - Contents are never returned, so that secrets are not shown.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The path of the file. Its folder is made.
        type: path
        required: true
      content:
        description: The text of the file.
        type: str
        required: true
      secret:
        description: Whether the file and its folder are for their owner alone.
        type: bool
        default: false
      gathered:
        description:
          - Whether the file holds facts of a host. Such a file is written in a check run as well,
            and is no change.
        type: bool
        default: false
      once:
        description:
          - Whether the file is made once. One that exists is left alone, whatever it holds; of
            several runs at once, the first one's file stays.
        type: bool
        default: false
author: edge-llm
"""

EXAMPLES = r"""
- name: Store the key
  control_files:
    files:
      - {path: keys/pi.env, content: "OPENAI_API_KEY={{ key }}", secret: true}
"""

RETURN = r"""
written:
  description: >-
    The files that have another content or mode now, or in a check run would have; without gathered
    ones.
  returned: success
  type: list
  elements: str
changes:
  description: >-
    The differences, one line for each. A line of a file is named by the text before its C(=); its
    value is not shown.
  returned: success
  type: list
  elements: str
"""
