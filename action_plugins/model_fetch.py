"""The model_fetch action: while the module waits for a download, it shows the progress."""

from __future__ import annotations

import signal
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from edge_fleet.addresses import with_control_address
from edge_fleet.progress import DownloadError, follow
from edge_fleet.text import MOST_TEXT, clean_text


class ActionModule(ActionBase):  # type: ignore[misc]
    """Calls the module; for `state: finished` repeatedly, until the download has ended."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        host = str(variables.get("inventory_hostname"))
        arguments = dict(self._task.args)
        # For the action only: whether a failure fails the task.
        optional = boolean(arguments.pop("optional", False))
        # An inventory's address may be made of other variables.
        address = self._templar.template(variables.get("ansible_host")) or host
        job = with_control_address(arguments["job"], str(address))

        def call_module() -> dict[str, Any]:
            # The task's limit is that of one call: `follow` has one for the download.
            if self._task.timeout:
                signal.alarm(self._task.timeout)
            result: dict[str, Any] = self._execute_module(
                module_args={**arguments, "job": job}, task_vars=variables
            )
            if result.get("failed"):
                result["msg"] = clean_text(result.get("msg"), MOST_TEXT)
            return result

        if arguments["state"] == "finished":
            machine = "the control machine" if self._task.delegate_to else host
            try:
                return follow(call_module, self._display.display, machine, job)
            except DownloadError as error:
                if optional:
                    self._display.display(f"{machine}: {error}.")
                    return {"changed": False, "download": {"state": "failed"}}
                # Ansible would print a cause after the message, which has it already.
                raise AnsibleActionFail(f"{host}: {error}.") from None
        result = call_module()
        if result.get("failed"):
            result["msg"] = f"{host}: {result.get('msg')}."
        return result
