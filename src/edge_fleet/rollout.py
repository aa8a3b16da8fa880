"""In which order, and how many at a time, hosts change: one policy for deployment and rollback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_fleet.fleet_comparison import EVERYBODY, NOBODY, remaining_names
from edge_fleet.settings import VARIABLES

Hosts = Mapping[str, Mapping[str, Any]]


def rollout(hosts: Hosts) -> dict[str, Any]:
    """The order and the batches in which hosts change: {"hosts": a pattern, "serial": batches}.

    `hosts` is hostvars, after `stack_pending` has been set for the hosts that will change. Those
    come first, so that the first batch is one of them: the canary. Where none of them serves yet,
    no canary is needed. Hosts that were found in place are not among them.
    """
    remaining = remaining_names(hosts)
    names = list(hosts) if remaining is None else remaining
    pending = [name for name in names if hosts[name].get("stack_pending")]
    others = [name for name in names if name not in pending]
    serving = [name for name in pending if _serves(hosts[name])]
    serial: list[int | str] = ["100%"]
    if serving:
        serial = _batches(hosts[pending[0]])
        pending = serving + [name for name in pending if name not in serving]
    nobody = EVERYBODY if remaining is None else NOBODY
    return {"hosts": ",".join(pending + others) or nobody, "serial": serial}


def _serves(host: Mapping[str, Any]) -> bool:
    return bool(host["preflight_state"]["deployment"]["release"])


def _batches(host: Mapping[str, Any]) -> list[int | str]:
    """The batches as the plan has them; a rollback has no plan, and reads the inventory."""
    plan = host.get("preflight_plan") or {}
    default = VARIABLES["llm_rollout"].default
    batches: list[int | str] = plan.get("rollout") or host.get("llm_rollout") or default
    return batches


def first_failure(hosts: Hosts) -> str:
    """The first host whose change failed in this run; empty where none did."""
    return next((name for name, host in hosts.items() if host.get("rollout_failure")), "")


def failure(host: Mapping[str, Any]) -> str:
    """Why a host did not change, a sentence; empty where it did, or did not need to."""
    if reason := host.get("rollout_failure"):
        return str(reason)
    if first := host.get("rollout_held_back"):
        name = host["inventory_hostname"]
        return f"{name}: held back, since {first} failed. Repair {first}, and run this again."
    return ""
