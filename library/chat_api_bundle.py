#!/usr/bin/python
"""Documentation of the chat_api_bundle action (action_plugins/chat_api_bundle.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: chat_api_bundle
short_description: Make the chat API's build context for an architecture, on the control machine
description:
  - Resolves the locked, hashed wheels for the architecture of a board, adds the provider module and
    the Dockerfile, and keeps the result as a tar archive named by the hash of its contents.
  - Downloads nothing where the archive exists, and writes nothing in a check run.
options:
  project:
    description: The root of the project, which holds src/ and requirements/api.txt.
    type: path
    required: true
  cache:
    description: The folder that keeps archives.
    type: path
    required: true
  base_image:
    description: The image that the chat API's image is built on. The version depends on it.
    type: str
    required: true
  architecture:
    description: The architecture of the boards, as container images name it.
    type: str
    required: true
    choices: [amd64, arm64]
author: edge-llm
"""

EXAMPLES = r"""
- name: Make the build context
  chat_api_bundle:
    project: "{{ playbook_dir }}/.."
    cache: .cache
    base_image: "docker.io/library/python:3.13-slim@{{ digest }}"
    architecture: arm64
  register: bundle
"""

RETURN = r"""
version:
  description: The hash of the contents, 16 hexadecimal digits.
  returned: success
  type: str
image:
  description: Name and tag of the image on a board.
  returned: success
  type: str
archive:
  description: The tar archive on the control machine. A check run does not make it.
  returned: success
  type: str
"""
