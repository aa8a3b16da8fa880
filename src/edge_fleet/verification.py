"""Judges what the verification of a host found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_host.gpu_offload import gpu_problem


def unverified_gpu(
    plan: Mapping[str, Any], log: Mapping[str, Any], report: Mapping[str, Any]
) -> str | None:
    """Why the layers of a host's engine are not verified to be on its GPU.

    None where they are, or where the plan does not require a GPU. `log` is the engine's
    (deployment.engine_log of host_info); `report` is that of `llm-provider check --json`, whose
    figure gpu_share comes from the chat API.
    """
    if not plan["gpu"]["required"]:
        return None
    return gpu_problem(plan["gpu"], plan["provider"], log, report.get("gpu_share"))


def failed_checks(report: Mapping[str, Any]) -> str:
    """The failed checks of a report, each with what was expected and found."""
    return "; ".join(
        f"{check['name']}: expected {check['wanted']}, found {check['seen']}"
        for check in report["checks"]
        if not check["ok"]
    )
