"""The release action: what the module returns is validated before anything uses or prints it.

See `edge_fleet.facts`.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action.normal import ActionModule as Normal

from edge_fleet.facts import FactsError, checked_result, kept_result


class ActionModule(Normal):  # type: ignore[misc]
    """Calls the module, and fails where the result of the change is wrong."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        kept = kept_result(result)
        # A check run has no result.
        if result.get("failed") or "result" not in result:
            return kept
        try:
            return {**kept, "result": checked_result(result["result"])}
        except FactsError as error:
            host = self._task.args.get("host")
            return {"failed": True, "changed": True, "msg": f"{host}: {error}"}
