"""The fleet_host action: a host has the state that fleet_state found."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from edge_fleet.fleet_comparison import IN_PLACE, UNREACHABLE

OPTIONS = {
    "state": {"type": "str", "required": True},
    "reasons": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Says so, as a task that connects would: a host that did not answer is unreachable."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(OPTIONS)
        if asked["state"] == UNREACHABLE:
            raise AnsibleConnectionFailure("; ".join(asked["reasons"]))
        return {
            "changed": False,
            "msg": f"{asked['state']}: {'; '.join(asked['reasons'])}",
            # As debug does: whoever reads the run sees why a host goes through its plays.
            "_ansible_verbose_always": asked["state"] != IN_PLACE,
        }
