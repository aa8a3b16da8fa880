"""Says that a long task is alive: how long it has run, and which hosts it still waits for."""

from __future__ import annotations

import threading
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: heartbeat
type: notification
short_description: Say that a long task is alive
description:
  - Prints a line every 15 seconds while a task runs, with the hosts that it still waits for.
requirements:
  - The name C(heartbeat) in C(callbacks_enabled) of ansible.cfg.
author: edge-llm
"""

EXAMPLES = r"""
# A line of a run that downloads weights:
# ... Wait for the downloads: 45 s, waiting for jetson-01, pi-01
"""

INTERVAL = 15.0


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """One thread wakes up every INTERVAL seconds and looks at the task that runs."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "heartbeat"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._task = ""
        self._begun = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(INTERVAL):
            with self._lock:
                elapsed = time.monotonic() - self._begun
                if self._waiting and elapsed >= INTERVAL:
                    hosts = ", ".join(sorted(self._waiting))
                    self._display.display(f"... {self._task}: {elapsed:.0f} s, waiting for {hosts}")

    def _start(self, task: Any) -> None:
        with self._lock:
            self._task, self._begun = task.get_name(), time.monotonic()
            self._waiting.clear()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._start(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._start(task)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        with self._lock:
            self._waiting.add(host.get_name())

    def _done(self, result: Any, **_: Any) -> None:
        with self._lock:
            self._waiting.discard(result._host.get_name())

    v2_runner_on_ok = _done
    v2_runner_on_failed = _done
    v2_runner_on_skipped = _done
    v2_runner_on_unreachable = _done

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._ended.set()
