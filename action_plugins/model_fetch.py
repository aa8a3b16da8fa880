"""The controller's side of model_fetch: while it waits for weights, it says how far they are."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

SECONDS = 5.0
"""How long one call to the host waits for the end; then it is told how far it is."""
SAY_SECONDS = 10.0
_MIB = 1024**2
_ENDED = ("done", "failed", "stopped", "gone")
_WORDS = {
    "begun": "begins",
    "asking": "asks",
    "fetching": "comes",
    "receiving": "comes",
    "verifying": "is verified",
}


def mib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / _MIB:,.0f} MiB" if size >= 10 * _MIB else f"{size / _MIB:.1f} MiB"


def progress(host: str, told: Mapping[str, Any]) -> str:
    """A line that says how far a bundle is: percent, bytes, rate, time left, from whom."""
    done, size = told.get("done", 0), told.get("size") or 0
    parts = [f"{host}: {told['name']} {_WORDS.get(told['state'], told['state'])}"]
    if size:
        parts.append(f"{100 * done // size} % of {mib(size)}")
    if told.get("rate") and told["state"] != "verifying":
        parts.append(f"{mib(told['rate'])}/s")
    if told.get("left") is not None and told["state"] != "verifying":
        parts.append(f"{duration(told['left'])} left")
    if told.get("from") and told["state"] in ("fetching", "receiving"):
        parts.append(f"from {' and '.join(told['from'])}")
    return ", ".join(parts)


def ended(host: str, told: Mapping[str, Any]) -> str:
    """The line of a bundle that has come."""
    size, seconds = told.get("size") or 0, told.get("seconds") or 0
    came = f"{host}: {told['name']} is there: {mib(size)} in {duration(seconds)}"
    return came + (f", from {' and '.join(told['from'])}" if told.get("from") else "")


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def own_address(peer: str) -> str | None:
    """This machine's address on the way to another one; None where there is no way."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing
            found: str = probe.getsockname()[0]
            return found
    except (OSError, ValueError):
        return None


class ActionModule(ActionBase):  # type: ignore[misc]
    """Calls the module; for `wait`, again and again until the work has ended."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        variables = task_vars or {}
        host = str(variables.get("inventory_hostname"))
        if arguments["action"] != "wait":
            return self._start(arguments, variables)
        said = time.monotonic()
        while True:
            result: dict[str, Any] = self._execute_module(
                module_args={**arguments, "seconds": SECONDS}, task_vars=variables
            )
            told = result.get("told")
            if result.get("failed") or not told:
                return result
            if told["state"] in _ENDED:
                break
            if time.monotonic() - said > SAY_SECONDS:
                self._display.display(progress(self._where(host), told))
                said = time.monotonic()
        if told["state"] != "done":
            reason = told.get("reason") or (
                "its download was killed; what has come is kept, and the next run goes on"
            )
            raise AnsibleActionFail(f"{host}: {reason}.")
        if told.get("from"):
            self._display.display(ended(self._where(host), told))
        return {**result, "changed": bool(told.get("from"))}

    def _where(self, host: str) -> str:
        return "the control machine" if self._task.delegate_to else host

    def _start(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """The module's answer; whoever takes from the control machine is told its address."""
        work = dict(arguments["work"])
        if seeds := work.pop("control_port", None):
            peer = str(variables.get("ansible_host") or variables.get("inventory_hostname"))
            if address := own_address(peer):
                work["peers"] = [*work["peers"], f"{address}:{seeds}"]
        result: dict[str, Any] = self._execute_module(
            module_args={**arguments, "work": work}, task_vars=variables
        )
        if result.get("failed"):
            host = variables.get("inventory_hostname")
            result["msg"] = f"{host}: {result.get('msg')}."
        return result
