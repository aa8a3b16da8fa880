"""In which order, and how many at a time, hosts are changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rollout(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """In which order and batches hosts are changed over: {"hosts": a pattern, "serial": batches}.

    `hosts` is hostvars, after the stack role has told which hosts are to change (stack_pending).
    Those come first, so that the first batch is one of them: the canary. A fleet in which nothing
    serves yet needs none.
    """
    pending = [name for name, host in hosts.items() if host.get("stack_pending")]
    others = [name for name in hosts if name not in pending]
    serving = [name for name in pending if hosts[name]["board_state"]["deployment"]["release"]]
    serial: list[int | str] = ["100%"]
    if serving:
        serial = hosts[pending[0]]["board_plan"]["rollout"]
        pending = serving + [name for name in pending if name not in serving]
    return {"hosts": ",".join(pending + others) or "all", "serial": serial}
