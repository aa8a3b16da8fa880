"""The chat_api_bundle action: see `edge_fleet.chat_api_bundle`.

An action, not a module: it runs within ansible-playbook's own process on the control machine, and a
module would start a Python of its own for every host, half a second each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from edge_fleet.chat_api_bundle import MACHINES, bundle

OPTIONS = {
    "project": {"type": "path", "required": True},
    "cache": {"type": "path", "required": True},
    "base_image": {"type": "str", "required": True},
    "architecture": {"type": "str", "required": True, "choices": sorted(MACHINES)},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Makes the archive where it is missing."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(OPTIONS)
        try:
            made = bundle(
                Path(asked["project"]),
                Path(asked["cache"]),
                asked["base_image"],
                asked["architecture"],
                bool(self._task.check_mode),
            )
        except OSError as error:
            raise AnsibleActionFail(str(error)) from error
        # The archive is a cache on the control machine: no host has changed.
        return {"changed": False, **made}
