"""Loads the project's filters once, in the process from which Ansible forks its workers."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader

DOCUMENTATION = r"""
name: preload_filters
type: notification
short_description: Load the project's filters before the first task
description:
  - Ansible forks a process for each task and host, and loads filters where a template names one.
    Without this plugin each of these processes imports the project's packages again, which takes
    longer than the rest of most tasks.
  - Prints nothing. A playbook behaves the same without it, and takes longer.
requirements:
  - The name C(preload_filters) in C(callbacks_enabled) of ansible.cfg.
author: edge-llm
"""

EXAMPLES = r"""
# ansible.cfg
# [defaults]
# callback_plugins = callback_plugins
# callbacks_enabled = preload_filters
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible finds the plugin by this class."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "preload_filters"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        # All filters of the project are in one file: naming one loads them all.
        filter_loader.get("edge_llm_plan")
