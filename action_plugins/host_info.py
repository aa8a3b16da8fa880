"""The host_info action: what the module returns is validated before anything uses or prints it.

See `edge_fleet.facts`.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action.normal import ActionModule as Normal

from edge_fleet.facts import FactsError, checked_state, kept_result


class ActionModule(Normal):  # type: ignore[misc]
    """Calls the module, and fails where a fact is wrong."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        kept = kept_result(result)
        if result.get("failed"):
            return kept
        try:
            return {**kept, "state": checked_state(result.get("state"))}
        except FactsError as error:
            # Without the facts: nobody is to use or print them.
            return {"failed": True, "changed": False, "msg": str(error)}
