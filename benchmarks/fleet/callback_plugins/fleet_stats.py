"""Writes what became of every host, whatever the output looks like."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: fleet_stats
type: notification
short_description: Write the summary of every host as JSON
description:
  - Writes the numbers of Ansible's recap, by host, to the file that C(FLEET_STATS) names.
  - The benchmark of fleets checks them, so that a run that did something else is not measured.
requirements:
  - The name C(fleet_stats) in C(callbacks_enabled), and the environment variable C(FLEET_STATS).
author: edge-llm
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible finds the plugin by this class."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet_stats"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats: Any) -> None:
        found = {host: stats.summarize(host) for host in stats.processed}
        Path(os.environ["FLEET_STATS"]).write_text(json.dumps(found))
