"""The client_benchmark action: see `edge_fleet.benchmark.client`.

An action, since it shows its progress: modules say nothing before their end.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from edge_fleet.benchmark.client import BenchmarkError, run_bench

OPTIONS = {
    "command": {"type": "list", "elements": "str", "required": True},
    "key": {"type": "str", "required": True, "no_log": True},
    "source": {"type": "path", "required": True},
    "seconds": {"type": "float", "default": 3600},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the command on the control machine and returns its result."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(OPTIONS)
        host = str((task_vars or {}).get("inventory_hostname"))
        try:
            bench = run_bench(
                asked["command"],
                asked["key"],
                asked["source"],
                lambda line: self._display.display(f"{host}: {line}"),
                asked["seconds"],
            )
        except (BenchmarkError, OSError) as error:
            raise AnsibleActionFail(f"{host}: {error}.") from error
        return {"changed": False, "bench": bench}
