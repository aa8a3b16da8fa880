"""The control_files action: see `edge_fleet.control_files`.

An action, not a module: it runs within ansible-playbook's own process on the control machine, and a
module would start a Python of its own for every host, half a second each.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from edge_fleet.control_files import write_files
from edge_host.files import write_atomically

FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True, "no_log": False},
    "secret": {"type": "bool", "default": False, "no_log": False},
    "gathered": {"type": "bool", "default": False},
    "once": {"type": "bool", "default": False},
}
OPTIONS = {"files": {"type": "list", "elements": "dict", "options": FILE, "required": True}}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Writes the files that differ."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(OPTIONS)
        try:
            return write_files(asked["files"], bool(self._task.check_mode), write_atomically)
        except OSError as error:
            raise AnsibleActionFail(str(error)) from error
