"""Says what to do about a task that reached its time limit."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: deadlines
type: notification
short_description: Say what to do about a task that reached its time limit
description:
  - Ansible says that a task timed out. This plugin names the host and the task, and what to do.
  - With C(no_log) the reason of a failure is hidden, so that it says that it may be this one.
requirements:
  - The name C(deadlines) in C(callbacks_enabled) of ansible.cfg.
author: edge-llm
"""

EXAMPLES = r"""
# What is printed for a host that answers, and does not end a task:
# jetson-01: the task "Read the host" did not end within 600 s. Check the host (uptime, df, ...
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Looks at tasks that failed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "deadlines"
    CALLBACK_NEEDS_ENABLED = True

    def _failed(self, result: Any, **_: Any) -> None:
        expired = result.result.get("timedout")
        if isinstance(expired, dict):
            outcome = f"did not end within {expired['period']} s"
        # With no_log nobody learns why a task failed. Of a loop, each item is told.
        elif "censored" in result.result and "results" not in result.result:
            outcome = "failed, or did not end within its time limit"
        else:
            return
        name, delegate = result.host.get_name(), result.task.delegate_to
        machine = "the control machine" if delegate == "localhost" else delegate or "the host"
        self._display.display(
            f'{name}: the task "{result.task.get_name()}" {outcome}.'
            f" Check {machine} (uptime, df, dmesg, journalctl -e), and run this again.",
            stderr=True,
        )

    v2_runner_on_failed = _failed
    v2_runner_item_on_failed = _failed
