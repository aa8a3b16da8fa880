"""Keeps control characters of hosts from the terminal, in whatever Ansible prints."""

from __future__ import annotations

import functools
from typing import Any

from ansible.plugins import callback
from ansible.plugins.callback import CallbackBase
from ansible.utils import color
from ansible.utils.display import Display

from edge_fleet.terminal import Screen

DOCUMENTATION = r"""
name: terminal
type: notification
short_description: Keep control characters of hosts from the terminal
description:
  - Escapes control and formatting characters in every line that Ansible prints or logs, such as
    messages of failed modules, warnings and tables. Colours of Ansible stay.
  - Prints nothing itself.
requirements:
  - The name C(terminal) in C(callbacks_enabled) of ansible.cfg.
author: edge-llm
"""

EXAMPLES = r"""
# ansible.cfg
# [defaults]
# callback_plugins = callback_plugins
# callbacks_enabled = terminal
"""


def guard(screen: Screen) -> None:
    """Let everything that Ansible prints pass through a screen.

    All its output goes through one method: a worker process hands its lines to the main one, which
    calls this method too. That method colours whole lines itself, after they have been escaped; the
    places that colour parts of a line do it before.
    """
    display, stringc = Display.display, color.stringc

    @functools.wraps(display)
    def show(self: Any, msg: str, *arguments: Any, **options: Any) -> Any:
        return display(self, screen.show(msg), *arguments, **options)

    @functools.wraps(stringc)
    def colour(text: str, *arguments: Any, **options: Any) -> str:
        return screen.mark(stringc(screen.escape(text), *arguments, **options))

    Display.display = show
    # The summary of a run, and differences of files.
    color.stringc = callback.stringc = colour


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible finds the plugin by this class, and makes one before the first task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "terminal"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        guard(Screen())
