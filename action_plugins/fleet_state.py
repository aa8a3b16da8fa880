"""The fleet_state action: see `edge_ansible.fleet`."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from edge_ansible.fleet import compare_fleet

OPTIONS = {"seconds": {"type": "float", "default": 60.0}}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Compares all hosts of the play with their plans."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(OPTIONS)
        return {"changed": False, "hosts": compare_fleet(self, task_vars or {}, asked["seconds"])}
